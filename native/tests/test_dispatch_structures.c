/* Timers, tables, routes, the log ring, buckets and histograms: each against something simple that cannot be wrong. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "dispatch/counters.h"
#include "dispatch/log_ring.h"
#include "dispatch/log_sweep.h"
#include "dispatch/logs.h"
#include "dispatch/loop.h"
#include "dispatch/request.h"
#include "dispatch/route.h"
#include "dispatch/table.h"
#include "dispatch/timers.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint32_t state = 1;

static uint32_t draw(uint32_t below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
}

/* ---- timers ---------------------------------------------------------------------------------------------------- */

#define TIMERS 200

static struct timers timers;
static struct entry {
    struct timer timer;
    uint64_t expected; /* 0: not set */
    unsigned fired;
} entries[TIMERS];
static uint64_t fired_last;

static void on_fire(struct timer *timer, uint64_t now) {
    struct entry *entry = list_entry(timer, struct entry, timer);
    CHECK(entry->expected != 0 && entry->expected <= now);
    CHECK(entry->expected >= fired_last);
    fired_last = entry->expected;
    entry->expected = 0;
    entry->fired++;
    /* Some set themselves anew. */
    if (draw(4) == 0) {
        entry->expected = now + 1 + draw(50);
        timer_set(&timers, timer, entry->expected);
    }
}

static uint64_t earliest(void) {
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < TIMERS; i++)
        if (entries[i].expected != 0)
            first = MIN(first, entries[i].expected);
    return first;
}

static void test_timers(void) {
    uint64_t now = 1000;
    for (size_t i = 0; i < TIMERS; i++)
        timer_init(&entries[i].timer, on_fire);
    for (unsigned round = 0; round < 200000; round++) {
        struct entry *entry = &entries[draw(TIMERS)];
        switch (draw(8)) {
        case 0:
            timer_clear(&entry->timer);
            entry->expected = 0;
            break;
        case 1:
            timer_drop(&timers, &entry->timer);
            entry->expected = 0;
            break;
        case 2:
            now += draw(20);
            fired_last = 0;
            timers_run(&timers, now);
            CHECK(earliest() > now);
            break;
        default:
            entry->expected = now + 1 + draw(200);
            timer_set(&timers, &entry->timer, entry->expected);
            break;
        }
        CHECK(timers_next(&timers) == earliest());
    }
}

/* ---- tables ---------------------------------------------------------------------------------------------------- */

/* Half of the keys differ only in bits that many keys share. */
static uint64_t spread(uint64_t key) {
    return key & 1 ? key << 44 : key;
}

static void test_table(void) {
    static void *oracle[512];
    struct table table = {0};
    size_t size = 0;

    for (unsigned round = 0; round < 300000; round++) {
        uint64_t key = draw(512);
        if (draw(3) != 0) {
            void *value = &oracle[draw(512)];
            CHECK(table_put(&table, spread(key), value) == 0);
            size += oracle[key] == NULL;
            oracle[key] = value;
        } else {
            CHECK(table_remove(&table, spread(key)) == oracle[key]);
            size -= oracle[key] != NULL;
            oracle[key] = NULL;
        }
        CHECK(table.size == size);
        key = draw(512);
        CHECK(table_get(&table, spread(key)) == oracle[key]);
    }
    size_t at = 0, seen = 0;
    while (table_next(&table, &at) != NULL)
        seen++;
    CHECK(seen == size);
    table_done(&table);
    CHECK(table_get(&table, 1) == NULL && table_remove(&table, 1) == NULL);
}

/* ---- routes ---------------------------------------------------------------------------------------------------- */

static struct wire_slice text(const char *text) {
    return (struct wire_slice){(const uint8_t *)text, (uint32_t)strlen(text)};
}

static void put(struct routes *routes, uint64_t id, uint64_t generation, const char *name, uint64_t target) {
    struct wire_header header = {.object = id, .generation = generation};
    struct wire_put_route message = {.name = text(name), .qualifier = text("q"), .target = target};
    CHECK(routes_put(routes, &header, &message, 1) == 0);
}

static uint64_t found(struct routes *routes, const char *name) {
    const struct route *route = routes_find(routes, text(name), text("q"));
    return route != NULL ? route->target : 0;
}

static void test_routes(void) {
    struct routes routes = {.seed = 7};
    char name[16];

    put(&routes, 1, 5, "a", 10);
    put(&routes, 1, 4, "a", 11); /* older */
    CHECK(found(&routes, "a") == 10);
    put(&routes, 1, 6, "b", 12); /* renamed */
    CHECK(found(&routes, "a") == 0 && found(&routes, "b") == 12);
    put(&routes, 2, 1, "b", 13); /* another object, the same name: the last one put */
    CHECK(found(&routes, "b") == 13);
    routes_del(&routes, 2);
    CHECK(found(&routes, "b") == 12);
    /* "ab" + "q" is not "a" + "bq". */
    CHECK(routes_find(&routes, text("bq"), text("")) == NULL);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        put(&routes, 100 + i, 1, name, 1000 + i);
    }
    for (unsigned i = 0; i < 1000; i += 2)
        routes_del(&routes, 100 + i);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        CHECK(found(&routes, name) == (i % 2 == 0 ? 0 : 1000 + i));
    }
    routes_sweep(&routes, 2);
    CHECK(routes.by_id.size == 0 && routes.by_hash.size == 0);

    struct route weighted = {.target = 1, .alternate = 2, .alternate_weight = 16384};
    unsigned alternates = 0;
    for (uint32_t i = 0; i < 65536; i++)
        alternates += route_pick(&weighted, i) == 2;
    CHECK(alternates == 16384);
    weighted.alternate_weight = ROUTE_WEIGHT_ONE;
    CHECK(route_pick(&weighted, 65535) == 2);
    weighted.alternate = 0;
    CHECK(route_pick(&weighted, 0) == 1);
    routes_done(&routes);
}

/* ---- the log ring ---------------------------------------------------------------------------------------------- */

#define ENTRIES 200000u

static uint32_t size_of(uint32_t number) {
    return 1 + (number * 2654435761u >> 12) % (number % 100 == 0 ? 100000 : 200);
}

static void *produce(void *argument) {
    struct log_ring *ring = argument;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        uint32_t size = size_of(i);
        struct ring_entry *entry;
        while ((entry = ring_reserve(ring, size, false)) == NULL)
            ;
        entry->file = NULL;
        memset(entry->payload, (int)i, size);
        ring_commit(ring, entry);
    }
    ring_stop(ring);
    return NULL;
}

static uint32_t consume(struct log_ring *ring, uint32_t number) {
    const struct ring_entry *entry;
    while ((entry = ring_peek(ring)) != NULL) {
        CHECK(entry->payload_size == size_of(number));
        CHECK(entry->payload[0] == (uint8_t)number && entry->payload[entry->payload_size - 1] == (uint8_t)number);
        ring_release(ring, entry);
        number++;
    }
    return number;
}

static void test_ring(void) {
    struct log_ring *ring = aligned_alloc(64, (sizeof(*ring) + 63) & ~(size_t)63);
    uint32_t number = 0;
    pthread_t producer;

    CHECK(ring != NULL);
    memset(ring, 0, sizeof(*ring));
    CHECK(pthread_create(&producer, NULL, produce, ring) == 0);
    while (atomic_load(&ring->stop) == 0) {
        ring_wait(ring, 1000000);
        number = consume(ring, number);
    }
    pthread_join(producer, NULL);
    number = consume(ring, number);
    CHECK(number == ENTRIES);
    /* Full: the reserve is for what must not be lost. */
    while (ring_reserve(ring, 1000, false) != NULL)
        ring_commit(ring, ring_reserve(ring, 1000, false));
    CHECK(ring_reserve(ring, 0, true) != NULL);
    free(ring);
}

/* ---- buckets, budgets, histograms ------------------------------------------------------------------------------ */

static void test_bucket(void) {
    struct bucket bucket;
    bucket_init(&bucket, 1000, 5000000);
    CHECK(bucket_take(&bucket, 2000, 5000000) == 0);
    CHECK(bucket_take(&bucket, 500, 5000000) == 500001);
    CHECK(bucket_wait(&bucket, 5250000) == 250001);
    CHECK(bucket_wait(&bucket, 5500000) == 0);
    /* Time below a token is not lost. */
    for (uint64_t now = 5500000; now < 6500000; now += 100)
        bucket_wait(&bucket, now);
    CHECK(bucket_take(&bucket, 1000, 6500000) == 0 && bucket_take(&bucket, 1, 6500000) == 1001);
    /* Idleness earns twice a second's worth and no more. */
    CHECK(bucket_take(&bucket, 2000, 900000000) == 0 && bucket_take(&bucket, 1, 900000000) == 1001);
}

static void test_budget(void) {
    struct budget budget = {.limit = 1000};
    static const uint8_t rest[1995];
    struct call call = {.name = text("f"), .total = 2000};
    struct request *request;
    CHECK(request_new(&request, &budget, &call) == -ENOMEM && budget.used == 0);
    budget.limit = 100000;
    call.body = text("12345");
    CHECK(request_new(&request, &budget, &call) == 0 && budget.used >= 2000);
    CHECK(request->received == 5 && request_append(request, text("")) == -EBADMSG);
    CHECK(request_append(request, (struct wire_slice){rest, sizeof(rest)}) == 0);
    CHECK(request_append(request, text("x")) == -EBADMSG);
    request_free(request);
    CHECK(budget.used == 0);
    call.total = REQUEST_BODY_MAX + 1;
    CHECK(request_new(&request, &budget, &call) == -EMSGSIZE);
}

/* What a function holds counts over all loops, and matters once half of all is in use. */
static void test_budget_shares(void) {
    struct budget_common *common = calloc(1, sizeof(*common));
    CHECK(common != NULL);
    common->limit = common->left = 16 * BUDGET_CHUNK;
    struct budget one = {.common = common}, other = {.common = common, .loop = LOOPS_MAX - 1};
    CHECK(budget_take_share(&one, 7, 5 * BUDGET_CHUNK) && budget_take_share(&other, 7, 2 * BUDGET_CHUNK));
    CHECK(!budget_take_share(&other, 7, 3 * BUDGET_CHUNK)); /* it would leave less than it has */
    CHECK(budget_take_share(&other, 8, 4 * BUDGET_CHUNK));  /* another one may */
    CHECK(!budget_take_share(&one, 7, BUDGET_CHUNK));
    budget_give_back_share(&other, 7, 2 * BUDGET_CHUNK);
    budget_give_back_share(&one, 7, 5 * BUDGET_CHUNK);
    CHECK(budget_take_share(&other, 7, 2 * BUDGET_CHUNK));
    budget_give_back_share(&other, 7, 2 * BUDGET_CHUNK);
    budget_give_back_share(&other, 8, 4 * BUDGET_CHUNK);
    CHECK(one.used == 0 && other.used == 0 && common->left + one.limit + other.limit == common->limit);
    free(common);
}

static void swallow(struct watch *watch, uint32_t events) {
    char byte;
    CHECK((events & EPOLLIN) && read(watch->fd, &byte, 1) == 1);
}

/* After each spin in vain there are twice as many turns without; one that finds something makes up for all. */
static void test_spinning(void) {
    static const uint32_t skips[] = {1, 2, 4, 8, 16, 32, 32};
    struct loop loop;
    int ends[2];

    CHECK(loop_open(&loop) == 0 && pipe(ends) == 0);
    struct watch watch = {.fd = ends[0], .ready = swallow};
    CHECK(loop_add(&loop, &watch, EPOLLIN) == 0);
    loop.gap_us = 0; /* hot */
    for (size_t i = 0; i < ARRAY_SIZE(skips); i++) {
        CHECK(loop_turn(&loop, true, 1) == 0 && loop.spinning[0].skip == skips[i]);
        while (loop.spinning[0].skip > 0)
            CHECK(loop_turn(&loop, true, 1) == 0);
    }
    CHECK(loop.spins == 0 && loop.spinning[1].skip == 0); /* who waits for an environment has its own count */
    CHECK(write(ends[1], "x", 1) == 1 && loop_turn(&loop, true, 1000) == 0);
    CHECK(loop.spins == 1 && loop.spinning[0].last == 0);
    loop.gap_us = 0;
    CHECK(loop_turn(&loop, true, 1) == 0 && loop.spinning[0].skip == 1);
    /* Without a spin events come all the same. */
    CHECK(write(ends[1], "x", 1) == 1 && loop_turn(&loop, true, 1000) == 0);
    CHECK(loop.spins == 1 && loop.spinning[0].skip == 0);
    loop_remove(&loop, &watch);
    loop_close(&loop);
    close(ends[0]);
    close(ends[1]);
}

static void test_histogram(void) {
    static struct histogram histogram;
    for (uint64_t value = 0; value < 5000000; value += 1 + value / 50) {
        unsigned bucket = histogram_bucket(value);
        CHECK(histogram_floor(bucket) <= value);
        CHECK(bucket == HISTOGRAM_BUCKETS - 1 || value < histogram_floor(bucket + 1));
        CHECK(bucket < 8 || (histogram_floor(bucket + 1) - histogram_floor(bucket)) * 8 <= histogram_floor(bucket));
    }
    CHECK(histogram_bucket(UINT64_MAX) == HISTOGRAM_BUCKETS - 1);
    CHECK(histogram_quantile(&histogram, 500) == 0);
    for (uint64_t value = 0; value < 1000; value++)
        histogram_add(&histogram, value);
    CHECK(histogram_count(&histogram) == 1000);
    uint64_t middle = histogram_quantile(&histogram, 500), late = histogram_quantile(&histogram, 990);
    CHECK(middle > 450 && middle < 550 && late > 900 && late < 1050);
}

static void test_counters(void) {
    static const uint8_t uid[16] = {1, 2, 3};
    struct counters counters;
    CHECK(counters_open(&counters, 1, 123) == 0);
    struct counters_slot *first = counters_take(&counters, 7, uid);
    CHECK(first == &counters.slots[1] && first->target == 7 && memcmp(first->function_uid, uid, 16) == 0);
    CHECK(counters.head->slots_high == 1);
    for (unsigned i = 2; i < COUNTERS_SLOTS; i++)
        CHECK(counters_take(&counters, 7 + i, uid) != &counters.slots[0]);
    CHECK(counters_take(&counters, 99999, uid) == &counters.slots[0]);
    CHECK(counters.head->slots_high == COUNTERS_SLOTS - 1);
    counters_give_back(&counters, &counters.slots[9]);
    counters_give_back(&counters, &counters.slots[4]);
    CHECK(counters_take(&counters, 70001, uid) == &counters.slots[4]);
    CHECK(counters_take(&counters, 70002, uid) == &counters.slots[9]);
    CHECK(counters_take(&counters, 70003, uid) == &counters.slots[0]);
    count_one(&first->calls);
    counters_give_back(&counters, first);
    counters_give_back(&counters, &counters.slots[0]);
    CHECK(counters.slots[0].target == UINT64_MAX);
    CHECK(counters_take(&counters, 8, uid) == first && first->calls == 0);
    counters_close(&counters);
    counters_close(&counters);
}

/* In hours; what a log that was just written reads. */
static bool believed(struct log_clock *clock, uint64_t real, uint64_t boot, uint64_t newest) {
    const uint64_t hour = LOG_DOUBT_US / 24;
    return log_clock_believed(clock, real * hour, boot * hour, newest * hour);
}

static void test_clock_steps(void) {
    const uint64_t now = 500000, years = 100000;
    struct log_clock clock = {0};

    CHECK(believed(&clock, now, 7, now - 1)); /* started where it ended */
    CHECK(believed(&clock, now + 1, 8, now));
    CHECK(believed(&clock, now + 900, 907, now)); /* nobody wrote for weeks */
    CHECK(believed(&clock, now + 910, 908, now)); /* set by a few hours */
    CHECK(!believed(&clock, now + years, 909, now));
    CHECK(!believed(&clock, now + years + 1, 910, now + years)); /* also when something was written since */
    CHECK(!believed(&clock, now + 912, 911, now + years));       /* and set back again */
    CHECK(!believed(&clock, now + 935, 934, now + years));
    CHECK(believed(&clock, now + 936, 935, now + years)); /* a day later */
    CHECK(!believed(&clock, now - years, 936, now + years));

    clock = (struct log_clock){0};
    CHECK(!believed(&clock, now + years, 7, now)); /* started with a clock that is ahead */
    CHECK(believed(&clock, now + years + 24, 31, now));
    clock = (struct log_clock){0};
    CHECK(believed(&clock, now, 7, 0)); /* there is nothing to judge by, nor to remove */
}

int main(void) {
    test_clock_steps();
    test_timers();
    test_table();
    test_routes();
    test_ring();
    test_bucket();
    test_budget();
    test_budget_shares();
    test_spinning();
    test_histogram();
    test_counters();
    return 0;
}
