/* Which idle environment is worth least, beside a search of all of them; and, printed, what a look costs. */
#include "dispatch/room.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/dispatch.h"
#include "dispatch/worth.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define TARGETS 200u
#define ENVIRONMENTS 1000u
#define SECOND UINT64_C(1000000)

static uint32_t seed = 5;

static uint32_t draw(uint32_t below) {
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(seed >> 4) * below >> 28);
}

/* A loop with nothing in it but idle environments. */
struct node {
    struct dispatch dispatch;
    struct loops loops;
    struct target targets[TARGETS];
    struct counters_idle counts[TARGETS];
    struct environment environments[ENVIRONMENTS];
};

static struct node *node_new(void) {
    struct node *node = calloc(1, sizeof(*node));
    CHECK(node != NULL);
    node->loops.n = 1;
    node->loops.each[0] = &node->dispatch;
    node->dispatch.loops = &node->loops;
    room_init(&node->dispatch.room);
    for (unsigned i = 0; i < TARGETS; i++) {
        struct target *target = &node->targets[i];
        target->dispatch = &node->dispatch;
        target->idle_times.counts = &node->counts[i];
        list_init(&target->idle);
        list_init(&target->waiting);
        list_init(&target->idle_room);
    }
    for (unsigned i = 0; i < ENVIRONMENTS; i++) {
        list_init(&node->environments[i].idle);
        list_init(&node->environments[i].by_use);
    }
    return node;
}

static void node_free(struct node *node) {
    for (unsigned i = 0; i < TARGETS; i++)
        free(node->targets[i].worth);
    free(node);
}

/* The machine may have been up for a short time. */
static uint64_t longest_us(void) {
    return MIN(3000 * SECOND, clock_monotonic_us() / 2);
}

/* Into its function's stack where it belongs by its time, as ahead_offer does. */
static void fall_idle(struct node *node, unsigned number, unsigned target, uint64_t idle_us) {
    struct environment *environment = &node->environments[number];
    environment->dispatch = &node->dispatch;
    environment->target = &node->targets[target];
    environment->idle_us = clock_monotonic_us() - idle_us;
    environment->served = 1;
    environment->peak_kb = draw(3) == 0 ? 0 : 500 + draw(300000);
    list_push_front(&environment->target->idle, &environment->idle);
    room_offer(environment);
}

static void leave(struct environment *environment) {
    list_remove(&environment->idle);
    room_withdraw(environment);
}

static void learn(struct counters_idle *counts, unsigned times) {
    unsigned around = draw(IDLE_BINS);
    for (unsigned n = 0; n < times; n++)
        counts->bins[draw(4) == 0 ? draw(IDLE_BINS) : (around + draw(5)) % IDLE_BINS]++;
    counts->gaps += times;
}

/* The rule as it is meant, over every function's last one. */
static double worth_of(const struct environment *environment) {
    return worth_rate(environment->target->idle_times.counts, clock_monotonic_us() - environment->idle_us) /
        (double)MAX(environment->peak_kb, ROOM_LEAST_KB);
}

static double least_of_all(struct node *node, unsigned targets) {
    double least = DBL_MAX;
    for (unsigned i = 0; i < targets; i++)
        if (!list_empty(&node->targets[i].idle))
            least = MIN(least, worth_of(list_entry(node->targets[i].idle.previous, struct environment, idle)));
    return least;
}

/* As many functions as are looked at: the least of all is found, however the others are called meanwhile. Tables are of an
 * eighth fewer gaps at most, so what is found may be worth a little more. */
static void test_the_least_is_found(void) {
    for (unsigned run = 0; run < 20; run++) {
        struct node *node = node_new();
        const unsigned targets = 1 + draw(ROOM_CANDIDATES_MAX);
        unsigned n = 0;
        for (unsigned i = 0; i < targets; i++)
            learn(&node->counts[i], draw(3) * draw(200));
        for (uint64_t idle = longest_us(), each = idle / ENVIRONMENTS; n < ENVIRONMENTS / 2; n++) {
            idle -= draw(2) * each;
            fall_idle(node, n, draw(targets), idle);
        }
        for (unsigned turn = 0; turn < 400; turn++) {
            struct environment *least = room_least(&node->dispatch);
            CHECK(least != NULL && least->idle.next != &least->idle);
            CHECK(least == list_entry(least->target->idle.previous, struct environment, idle));
            CHECK(worth_of(least) <= least_of_all(node, targets) * 1.3);
            leave(turn % 3 == 0 ? least : &node->environments[draw(n)]);
        }
        node_free(node);
    }
}

/* More functions than that: each is looked at in its turn, and one that is worth nothing is found. */
static void test_each_has_its_turn(void) {
    struct node *node = node_new();
    struct environment *worthless;
    unsigned looks = 0;

    for (unsigned i = 0; i < TARGETS; i++)
        fall_idle(node, i, i, longest_us() / 10);
    worthless = &node->environments[150];
    worthless->peak_kb = UINT64_C(1) << 40;
    while (room_least(&node->dispatch) != worthless)
        CHECK(++looks < (TARGETS + ROOM_CANDIDATES_MAX - 1) / ROOM_CANDIDATES_MAX);
    node_free(node);
}

static void test_provisioned_ones_are_not_there(void) {
    struct node *node = node_new();
    for (unsigned i = 0; i < ENVIRONMENTS; i++)
        node->environments[i].init_type = i == 7 ? 0 : WIRE_INIT_TYPE_PROVISIONED_CONCURRENCY;
    for (unsigned i = 0; i < ENVIRONMENTS; i++) {
        list_init(&node->targets[0].ahead.idle);
        fall_idle(node, i, i % TARGETS, longest_us() / 10);
        if (i != 7) { /* their stack is another one */
            list_remove(&node->environments[i].idle);
        }
    }
    CHECK(room_least(&node->dispatch) == &node->environments[7]);
    CHECK(node->dispatch.room.n_idle == 1);
    leave(&node->environments[7]);
    CHECK(room_least(&node->dispatch) == NULL);
    node_free(node);
}

/* Those that were never used lie below what was used: they have been idle for as long as the one used longest ago. */
static void test_unused_ones(void) {
    struct node *node = node_new();
    fall_idle(node, 0, 0, longest_us());
    fall_idle(node, 1, 1, longest_us() / 4);
    node->environments[0].peak_kb = node->environments[1].peak_kb = node->environments[2].peak_kb = 2000;
    fall_idle(node, 2, 0, longest_us() / 100);
    node->environments[2].served = 0;
    node->environments[2].peak_kb = 2000;
    list_remove(&node->environments[2].idle);
    list_push_back(&node->targets[0].idle, &node->environments[2].idle);
    CHECK(room_least(&node->dispatch) == &node->environments[2]);
    node_free(node);
}

/* Printed, for whoever wants to know; what it may be is the reader's to say. */
static void print_cost(void) {
    struct node *node = node_new();
    uint64_t began;
    double sum = 0;

    for (unsigned i = 0; i < ROOM_CANDIDATES_MAX; i++)
        learn(&node->counts[i], 1000);
    for (unsigned i = 0; i < ENVIRONMENTS; i++)
        fall_idle(node, i, i % ROOM_CANDIDATES_MAX, longest_us() / 1000 * (1 + draw(900)));
    for (unsigned n = 0; n < ROOM_CANDIDATES_MAX; n++) /* until each has its table */
        (void)room_least(&node->dispatch);
    began = clock_monotonic_us();
    for (unsigned n = 0; n < 1000; n++)
        sum += room_least(&node->dispatch) != NULL;
    printf("1,000 environments of 64 functions, a look: %.2f us\n", (double)(clock_monotonic_us() - began) / 1000);
    began = clock_monotonic_us();
    for (unsigned n = 0; n < 20; n++)
        sum += least_of_all(node, ROOM_CANDIDATES_MAX);
    printf("without tables: %.2f us\n", (double)(clock_monotonic_us() - began) / 20);
    began = clock_monotonic_us();
    for (unsigned n = 0; n < 1000; n++)
        worth_fill(node->targets[n % ROOM_CANDIDATES_MAX].worth, &node->counts[n % ROOM_CANDIDATES_MAX]);
    printf("a table: %.2f us\n", (double)(clock_monotonic_us() - began) / 1000);
    CHECK(sum > 0);
    node_free(node);
}

int main(void) {
    test_the_least_is_found();
    test_each_has_its_turn();
    test_provisioned_ones_are_not_there();
    test_unused_ones();
    print_cost();
    return EXIT_SUCCESS;
}
