/* Connections' ways between loops; see the header. */
#include "dispatch/spread.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/dispatch.h"

#define RELAXED memory_order_relaxed

/* ---- on their way ---------------------------------------------------------------------------------------------- */

void spread_sent(struct loops *loops, unsigned to) {
    atomic_fetch_add_explicit(&loops->each[to]->spread.sent, 1, RELAXED);
}

void spread_took(struct dispatch *dispatch) {
    count_one(&dispatch->spread.taken);
}

static void welcome(struct dispatch *dispatch, struct mail *mail) {
    struct newcomer *newcomer = list_entry(mail, struct newcomer, mail);
    newcomer->take(dispatch, newcomer->fd, newcomer->detail);
    spread_took(dispatch);
    free(newcomer);
}

static void turn_away(struct mail *mail) {
    struct newcomer *newcomer = list_entry(mail, struct newcomer, mail);
    close(newcomer->fd);
    free(newcomer);
}

void spread_send(struct dispatch *from, unsigned to, int fd, uint64_t detail,
    void (*take)(struct dispatch *dispatch, int fd, uint64_t detail)) {
    struct newcomer *newcomer = to != from->number ? malloc(sizeof(*newcomer)) : NULL;

    if (newcomer == NULL) {
        take(from, fd, detail);
        return;
    }
    *newcomer =
        (struct newcomer){.mail = {.deliver = welcome, .discard = turn_away}, .fd = fd, .detail = detail, .take = take};
    spread_sent(from->loops, to);
    loops_post(from->loops, to, &newcomer->mail);
}

void spread_hand_out(
    struct dispatch *first, int fd, uint64_t detail, void (*take)(struct dispatch *dispatch, int fd, uint64_t detail)) {
    spread_send(first, first->loops->n > 1 ? spread_choose(first->loops) : 0, fd, detail, take);
}

/* ---- what loops know of each other ------------------------------------------------------------------------------ */

static void look_around(struct loops *loops, struct balance_view views[LOOPS_MAX]) {
    uint64_t now = clock_monotonic_us();

    for (unsigned i = 0; i < loops->n; i++) {
        const struct spread *spread = &loops->each[i]->spread;
        uint64_t taken = atomic_load_explicit(&spread->taken, RELAXED);
        uint64_t open = atomic_load_explicit(&spread->open, RELAXED);
        uint64_t on_the_way = atomic_load_explicit(&spread->sent, RELAXED) - taken;
        views[i] = (struct balance_view){.load = atomic_load_explicit(&spread->load, RELAXED),
            /* They change one after the other: never below 0 for it. */
            .connections = (uint32_t)MAX((int64_t)(open + on_the_way), 0)};
        if (atomic_load_explicit(&spread->load_us, RELAXED) + SPREAD_STALE_US < now)
            views[i].load = 0;
    }
}

unsigned spread_choose(struct loops *loops) {
    struct balance_view views[LOOPS_MAX];
    look_around(loops, views);
    return balance_choose(views, loops->n, &loops->balance);
}

static uint64_t processor_us(void) {
    struct timespec time;
    return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0
        ? (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000
        : 0;
}

/* Over a short time a quarter of the news counts, over a long one all of it. */
static void account(struct dispatch *dispatch, uint64_t now) {
    struct spread *spread = &dispatch->spread;
    uint64_t cpu = processor_us(), elapsed = now - spread->account_us;
    uint64_t spun = dispatch->loop.spun_us - spread->spun_us, ran = cpu - spread->cpu_us;
    uint32_t fresh = (uint32_t)MIN((ran > spun ? ran - spun : 0) * 1000 / elapsed, 1000u);
    uint32_t load = atomic_load_explicit(&spread->load, RELAXED);

    if (spread->account_us == 0 || elapsed >= SPREAD_STALE_US)
        load = spread->account_us == 0 ? 0 : fresh;
    else
        load = (load * 3 + fresh) / 4;
    atomic_store_explicit(&spread->load, load, RELAXED);
    atomic_store_explicit(&spread->load_us, now, RELAXED);
    spread->account_us = now;
    spread->cpu_us = cpu;
    spread->spun_us = dispatch->loop.spun_us;
}

/* ---- moving ------------------------------------------------------------------------------------------------------ */

/* Connections that were used lately, of those that are looked at. */
static uint32_t count_active(const struct dispatch *dispatch) {
    const struct list *all[] = {&dispatch->http.connections, &dispatch->transport.connections};
    uint64_t since = dispatch->loop.now_us - MIN(dispatch->loop.now_us, (uint64_t)SPREAD_ACTIVE_US);
    uint32_t active = 0, looks = 0;

    for (const struct list *node = all[0]->next; node != all[0] && ++looks <= SPREAD_LOOK_MAX; node = node->next)
        active += list_entry(node, struct http_connection, node)->used_us >= since;
    for (const struct list *node = all[1]->next; node != all[1] && ++looks <= SPREAD_LOOK_MAX; node = node->next)
        active += list_entry(node, struct connection, node)->used_us >= since;
    return active;
}

/* Those that can go now. The others may at the end of a later turn. */
static void send_off(struct dispatch *dispatch) {
    struct spread_leaving *leaving = &dispatch->spread.leaving;
    uint64_t now = dispatch->loop.now_us;
    uint32_t looks = 0;

    if (now >= leaving->until_us)
        leaving->count = 0;
    list_for_each_safe(node, &dispatch->http.connections) {
        struct http_connection *connection = list_entry(node, struct http_connection, node);
        if (leaving->count == 0 || ++looks > SPREAD_LOOK_MAX)
            return;
        if (connection->used_us >= leaving->used_us && http_move(connection, leaving->to, now))
            leaving->count--;
    }
    list_for_each_safe(node, &dispatch->transport.connections) {
        struct connection *connection = list_entry(node, struct connection, node);
        if (leaving->count == 0 || ++looks > SPREAD_LOOK_MAX)
            return;
        if (connection->used_us >= leaving->used_us && connection_move(connection, leaving->to, now))
            leaving->count--;
    }
}

/* To relieve this loop active ones go; for good, all. */
static void look(struct dispatch *dispatch, uint64_t now) {
    struct spread *spread = &dispatch->spread;
    const struct balance_rule *rule = &dispatch->loops->balance;
    struct balance_view views[LOOPS_MAX];
    struct balance_own own = {
        .movable = dispatch->http.n_connections - dispatch->http.n_h2 + dispatch->transport.n_connections};
    struct balance_move move;

    look_around(dispatch->loops, views);
    if (views[dispatch->number].load >= rule->busy)
        own.active = count_active(dispatch);
    move = balance_look(&spread->state, views, dispatch->loops->n, dispatch->number, &own, rule, now);
    if (move.count == 0)
        return;
    spread->leaving = (struct spread_leaving){.to = move.to, .count = move.count, .until_us = now + SPREAD_LEAVING_US};
    if (views[dispatch->number].load >= rule->busy)
        spread->leaving.used_us = now - SPREAD_ACTIVE_US;
}

void spread_step(struct dispatch *dispatch) {
    struct spread *spread = &dispatch->spread;
    uint64_t now = dispatch->loop.now_us;

    if (dispatch->loops->n == 1)
        return;
    if (now - spread->account_us >= SPREAD_ACCOUNT_US) {
        account(dispatch, now);
        if (dispatch->loops->balance.busy != 0)
            look(dispatch, now);
    }
    if (spread->leaving.count > 0 && !dispatch->draining && !dispatch->handover.giving)
        send_off(dispatch);
}
