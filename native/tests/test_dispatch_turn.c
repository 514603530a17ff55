/* Whose turn it is on a full node: functions that are called in closed loops share fewer environments than they are, in a
 * time of our own. Each gets its share, nobody waits beyond a bound, and a turn serves more than one call. */
#include "dispatch/turn.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define FUNCTIONS_MAX 20u
#define CALLERS_MAX 8u
#define SECOND UINT64_C(1000000)
#define NEVER UINT64_MAX

/* ---- the rule, on views by hand ---------------------------------------------------------------------------------- */

#define NOW (10 * SECOND)

static const struct turn_view idle = {
    .now_us = NOW,
    .made_us = SECOND,
    .cost_us = 3000,
    .idle_us = NOW,
    .pause_us = 50,
    .other_us = NOW - 10,
    .line = 1,
    .places = 4,
};

static void test_idle_ones(void) {
    struct turn_view view = idle;

    CHECK(turn_until(&view) == NOW + 3000); /* its cost */
    view.cost_us = SECOND;
    CHECK(turn_until(&view) == NOW + TURN_LINGER_US);
    view.pause_us = TURN_LINGER_US + 1;
    CHECK(turn_until(&view) == 0); /* its next call is not that near */
    view.pause_us = UINT64_MAX;
    CHECK(turn_until(&view) == 0); /* nobody knows */
    view.pause_us = 50;
    view.other_us = NOW - TURN_US + 700;
    CHECK(turn_until(&view) == NOW + 700);
    view.other_us = NOW - TURN_US;
    CHECK(turn_until(&view) == 0); /* its turn is over */
    view.other_us = 0;
    CHECK(turn_until(&view) == 0);
    view.made_us = NOW - TURN_US + 600; /* only made when the others waited already */
    CHECK(turn_until(&view) == NOW + 600);
}

static void test_busy_ones(void) {
    struct turn_view view = idle;

    view.own_us = view.other_us;
    view.made_us = view.now_us = NOW + SECOND;
    CHECK(turn_until(&view) == NEVER); /* it came no later */
    view.own_us++;
    CHECK(turn_until(&view) == NOW + SECOND + TURN_US);
    view.line = 20; /* five in turn for each place */
    CHECK(turn_until(&view) == NOW + SECOND + TURN_US / 5);
    view.cost_us = 30000;
    CHECK(turn_until(&view) == NOW + SECOND + 30000);
    view.cost_us = 60 * SECOND;
    CHECK(turn_until(&view) == NOW + SECOND + TURN_US);
    view.made_us = 0;
    CHECK(turn_until(&view) == 0);
    view.other_us = 0;
    CHECK(turn_until(&view) == NEVER); /* who wants room has nobody waiting */
    view.now_us = view.made_us = view.own_us =
        UINT64_MAX; /* no clock shows that, and nothing is added beyond its end */
    view.other_us = UINT64_MAX - 1;
    CHECK(turn_until(&view) == 0);
}

/* ---- a node in a time of its own --------------------------------------------------------------------------------- */

struct load {
    unsigned functions, environments, callers;
    uint64_t duration_us, pause_us, cost_us;
    bool give_at_once; /* the rule beside it: who has nothing waiting gives way */
};

struct function {
    uint64_t calls_us[CALLERS_MAX]; /* when each caller calls again; NEVER: it waits, or is served */
    uint64_t queue[CALLERS_MAX];    /* arrivals, a ring */
    unsigned head, n, open;
    bool has, wants;
    uint64_t left_us, pauses_us[2];
    uint64_t served, longest_us, busy_us;
};

struct environment {
    struct function *function; /* NULL: none is there */
    uint64_t ready_us, launched_us, until_us, idle_us;
    unsigned caller;
    bool busy, made;
};

struct node {
    const struct load *load;
    uint64_t now_us, launches;
    struct function functions[FUNCTIONS_MAX];
    struct environment environments[FUNCTIONS_MAX];
    unsigned line[FUNCTIONS_MAX], n_line; /* functions that want room, in turn */
};

static uint32_t seed = 7;

static uint64_t around(uint64_t us) {
    seed = seed * 1664525u + 1013904223u;
    return us - us / 4 + us * (seed >> 16) / 65536 / 2;
}

static uint64_t head_of(const struct function *function) {
    return function->n > 0 ? function->queue[function->head] : 0;
}

static uint64_t until_of(const struct node *node, const struct environment *environment) {
    const struct function *function = environment->function;
    const struct turn_view view = {
        .now_us = node->now_us,
        .made_us = environment->ready_us,
        .cost_us = environment->ready_us - environment->launched_us,
        .idle_us = environment->idle_us,
        .pause_us = MAX(function->pauses_us[0], function->pauses_us[1]),
        .own_us = head_of(function),
        .other_us = node->n_line > 0 ? head_of(&node->functions[node->line[0]]) : 0,
        .line = node->n_line,
        .places = node->load->environments,
    };
    if (node->n_line == 0)
        return NEVER;
    if (node->load->give_at_once && view.own_us == 0)
        return 0;
    return turn_until(&view);
}

static void want(struct node *node, struct function *function) {
    if (function->n == 0 || function->has || function->wants)
        return;
    function->wants = true;
    node->line[node->n_line++] = (unsigned)(function - node->functions);
}

static void launch(struct node *node, struct environment *environment) {
    struct function *function = &node->functions[node->line[0]];

    for (unsigned i = 1; i < node->n_line; i++)
        node->line[i - 1] = node->line[i];
    node->n_line--;
    node->launches++;
    function->wants = false;
    function->has = true;
    *environment = (struct environment){
        .function = function,
        .launched_us = node->now_us,
        .until_us = node->now_us + around(node->load->cost_us),
    };
}

static void serve(struct node *node, struct environment *environment) {
    struct function *function = environment->function;
    const uint64_t lasts = around(node->load->duration_us);

    function->longest_us = MAX(function->longest_us, node->now_us - head_of(function));
    function->head = (function->head + 1) % CALLERS_MAX;
    function->n--;
    function->busy_us += lasts;
    environment->busy = true;
    environment->until_us = node->now_us + lasts;
}

/* It is free, or was idle until now: serves, stays or gives way. */
static void decide(struct node *node, struct environment *environment) {
    const uint64_t until = until_of(node, environment);

    if (until <= node->now_us) {
        environment->function->has = false;
        want(node, environment->function);
        environment->function = NULL;
        if (node->n_line > 0)
            launch(node, environment);
    } else if (environment->function->n > 0)
        serve(node, environment);
    else
        environment->until_us = until;
}

static void call(struct node *node, struct function *function) {
    if (function->open++ == 0 && function->left_us != 0) {
        function->pauses_us[1] = function->pauses_us[0];
        function->pauses_us[0] = node->now_us - function->left_us;
    }
    function->queue[(function->head + function->n++) % CALLERS_MAX] = node->now_us;
    want(node, function);
}

static void look_at_idle(struct node *node) {
    for (unsigned i = 0; i < node->load->environments; i++) {
        struct environment *environment = &node->environments[i];
        if (environment->function == NULL && node->n_line > 0)
            launch(node, environment);
        else if (environment->function != NULL && environment->made && !environment->busy)
            decide(node, environment);
    }
}

static void step(struct node *node) {
    for (unsigned i = 0; i < node->load->environments; i++) {
        struct environment *environment = &node->environments[i];
        struct function *function = environment->function;
        if (function == NULL || environment->until_us > node->now_us || (environment->made && !environment->busy))
            continue;
        if (environment->made) {
            environment->busy = false;
            function->served++;
            if (--function->open == 0)
                function->left_us = node->now_us;
            for (unsigned k = 0; k < node->load->callers; k++)
                if (function->calls_us[k] == NEVER) {
                    function->calls_us[k] = node->now_us + around(node->load->pause_us);
                    break;
                }
        } else {
            environment->made = true;
            environment->ready_us = node->now_us;
        }
        environment->idle_us = node->now_us;
        decide(node, environment);
    }
    for (unsigned i = 0; i < node->load->functions; i++)
        for (unsigned k = 0; k < node->load->callers; k++)
            if (node->functions[i].calls_us[k] <= node->now_us) {
                node->functions[i].calls_us[k] = NEVER;
                call(node, &node->functions[i]);
            }
    look_at_idle(node);
}

static uint64_t next_of(const struct node *node) {
    uint64_t next = NEVER;
    for (unsigned i = 0; i < node->load->environments; i++)
        if (node->environments[i].function != NULL && node->environments[i].until_us > node->now_us)
            next = MIN(next, node->environments[i].until_us);
    for (unsigned i = 0; i < node->load->functions; i++)
        for (unsigned k = 0; k < node->load->callers; k++)
            next = MIN(next, node->functions[i].calls_us[k]);
    return next;
}

struct outcome {
    uint64_t served, launches, longest_us, least_busy_us, most_busy_us, least_served;
};

static struct outcome run(const struct load *load, uint64_t for_us) {
    struct node *node = calloc(1, sizeof(*node));
    struct outcome outcome = {.least_busy_us = NEVER, .least_served = NEVER};
    CHECK(node != NULL);
    node->load = load;
    for (unsigned i = 0; i < load->functions; i++) {
        struct function *function = &node->functions[i];
        function->pauses_us[0] = function->pauses_us[1] = NEVER;
        for (unsigned k = 0; k < load->callers; k++)
            function->calls_us[k] = SECOND + around(load->pause_us + 1000);
    }
    for (node->now_us = SECOND; node->now_us < SECOND + for_us; node->now_us = next_of(node))
        step(node);
    for (unsigned i = 0; i < load->functions; i++) {
        const struct function *function = &node->functions[i];
        const uint64_t waits = function->n > 0 ? node->now_us - head_of(function) : 0;
        outcome.served += function->served;
        outcome.longest_us = MAX(outcome.longest_us, MAX(function->longest_us, waits));
        outcome.least_busy_us = MIN(outcome.least_busy_us, function->busy_us);
        outcome.most_busy_us = MAX(outcome.most_busy_us, function->busy_us);
        outcome.least_served = MIN(outcome.least_served, function->served);
    }
    outcome.launches = node->launches;
    free(node);
    return outcome;
}

/* How long one may wait: for as many turns as come before its own, each with a launch, the calls that were there when it
 * came, and what the rule adds. */
static uint64_t bound_us(const struct load *load) {
    const uint64_t turns = (load->functions + load->environments - 1) / load->environments;
    const uint64_t turn = 2 * load->cost_us + TURN_LINGER_US + (load->callers + 2) * load->duration_us;
    return (TURN_US + turns * turn) * 5 / 4;
}

static void check_flood(const struct load *load) {
    const uint64_t bound = bound_us(load);
    const struct outcome outcome = run(load, 6 * bound);

    if (outcome.longest_us <= bound && outcome.most_busy_us <= 3 * outcome.least_busy_us)
        return;
    fprintf(stderr,
        "%u functions, %u environments, %u callers, %llu us each, pause %llu, cost %llu: waited %llu of %llu at most, "
        "busy %llu to %llu\n",
        load->functions, load->environments, load->callers, (unsigned long long)load->duration_us,
        (unsigned long long)load->pause_us, (unsigned long long)load->cost_us, (unsigned long long)outcome.longest_us,
        (unsigned long long)bound, (unsigned long long)outcome.least_busy_us, (unsigned long long)outcome.most_busy_us);
    exit(1);
}

static void test_floods(void) {
    static const uint64_t durations[] = {2000, 20000}, pauses[] = {40, 1000}, costs[] = {1500, 60000};
    static const unsigned functions[] = {2, 5, 9, FUNCTIONS_MAX}, environments[] = {1, 4}, callers[] = {1, 6};

    for (unsigned i = 0; i < 128; i++) {
        const struct load load = {
            .functions = functions[i >> 5 & 3],
            .environments = environments[i >> 4 & 1],
            .callers = callers[i >> 3 & 1],
            .duration_us = durations[i >> 2 & 1],
            .pause_us = pauses[i >> 1 & 1],
            .cost_us = costs[i & 1],
        };
        if (load.functions > load.environments)
            check_flood(&load);
    }
}

/* Twenty functions that are called anew 50 us after each answer, on four environments that take 3 ms to make. */
static void test_a_turn_is_worth_its_launch(void) {
    struct load load = {
        .functions = 20, .environments = 4, .callers = 1, .duration_us = 100, .pause_us = 50, .cost_us = 3000};
    const struct outcome turns = run(&load, 3 * SECOND);
    struct outcome once;
    load.give_at_once = true;
    once = run(&load, 3 * SECOND);
    printf("turns: %llu served, %llu launches, longest wait %llu us; at once: %llu, %llu, %llu\n",
        (unsigned long long)turns.served, (unsigned long long)turns.launches, (unsigned long long)turns.longest_us,
        (unsigned long long)once.served, (unsigned long long)once.launches, (unsigned long long)once.longest_us);
    CHECK(once.launches * 10 > once.served * 9); /* a launch for nearly each call */
    CHECK(turns.launches * 20 < turns.served);
    CHECK(turns.served > 10 * once.served);
}

/* Those that are called now and then gain nothing by staying, and lose nothing. */
static void test_who_is_called_seldom_keeps_nothing(void) {
    struct load load = {
        .functions = 20, .environments = 4, .callers = 1, .duration_us = 1000, .pause_us = 60000, .cost_us = 3000};
    const struct outcome turns = run(&load, 3 * SECOND);
    struct outcome once;
    load.give_at_once = true;
    once = run(&load, 3 * SECOND);
    CHECK(turns.served * 20 > once.served * 19);
    CHECK(turns.longest_us < 2 * once.longest_us);
}

int main(void) {
    test_idle_ones();
    test_busy_ones();
    test_floods();
    test_a_turn_is_worth_its_launch();
    test_who_is_called_seldom_keeps_nothing();
    return EXIT_SUCCESS;
}
