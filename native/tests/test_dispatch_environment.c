/* The state table of environments, walked: every sequence of listed events to a depth, with a small account of what
 * the commands mean; and every pair of the table by itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/environment.h"

#define DEPTH 18
#define ANSWERS                                                                                                        \
    (COMMAND_ANSWER_RESULT | COMMAND_ANSWER_INIT_ERROR | COMMAND_ANSWER_TIMEOUT | COMMAND_ANSWER_EXIT |                \
        COMMAND_ANSWER_VIOLATION | COMMAND_ANSWER_LAUNCH)

static enum environment_event path[DEPTH];
static int length;
static unsigned long steps, ends;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail(__LINE__, #condition);                                                                                \
    } while (0)

static void fail(int line, const char *condition) {
    fprintf(stderr, "%s:%d: %s, after", __FILE__, line, condition);
    for (int i = 0; i < length; i++)
        fprintf(stderr, " %s", environment_event_name(path[i]));
    fputc('\n', stderr);
    exit(1);
}

/* What has been commanded so far. */
struct account {
    bool started;  /* START */
    bool offered;  /* OFFER, and nothing assigned since */
    bool bound;    /* INVOKE without RELEASE */
    bool answered; /* the bound invocation has its answer */
    bool ended;    /* END: the launcher knows */
    bool awaited;  /* AWAIT_EXIT: it hung up */
    bool channel;  /* open */
    bool waited;   /* somebody waits for its init phase */
    bool retired;  /* RETIRE was heard */
};

static unsigned bits(uint32_t mask) {
    return (unsigned)__builtin_popcount(mask);
}

static void apply(struct account *a, enum environment_state before, enum environment_event event, struct transition t) {
    uint32_t c = t.commands;

    CHECK(before != ENVIRONMENT_DEAD);
    CHECK(bits(c & ANSWERS) <= 1);
    if (c & COMMAND_START) {
        CHECK(!a->started && event == EVENT_LAUNCHED);
        a->started = a->channel = true;
    }
    if (c & COMMAND_INVOKE) {
        CHECK(a->offered && !a->bound && a->channel);
        a->offered = false;
        a->bound = true;
        a->answered = false;
    }
    if (c & ANSWERS) {
        if (a->bound) {
            CHECK(!a->answered);
            a->answered = true;
        } else {
            /* During launch or init: one caller, and never a result. */
            CHECK((c & COMMAND_ANSWER_RESULT) == 0 && a->waited);
            a->waited = false;
        }
    }
    if (c & COMMAND_RELEASE) {
        CHECK(a->bound && a->answered);
        a->bound = false;
    }
    if (c & COMMAND_TAKE_BACK) {
        CHECK(a->bound && !a->answered && (c & (ANSWERS | COMMAND_RELEASE)) == 0);
        a->bound = false;
    }
    if (c & COMMAND_OFFER) {
        CHECK(!a->bound && !a->offered && t.next == ENVIRONMENT_IDLE && !a->ended);
        a->offered = true;
        a->waited = false;
    }
    if (c & (COMMAND_END | COMMAND_AWAIT_EXIT)) {
        CHECK(!a->ended && bits(c & (COMMAND_END | COMMAND_AWAIT_EXIT)) == 1);
        CHECK((c & COMMAND_END) || !a->awaited);
        a->ended = (c & COMMAND_END) != 0;
        a->awaited = !a->ended;
        a->channel = false;
        a->offered = false;
    }
    if (c & COMMAND_REINIT) {
        CHECK(!a->bound && a->ended && a->waited);
        a->waited = false;
    }
    if (event == EVENT_RETIRE) {
        /* Now, or remembered for when it is free. */
        CHECK(a->ended || (c & COMMAND_MARK));
        a->retired = true;
    }
    CHECK(((c & COMMAND_GONE) != 0) == (t.next == ENVIRONMENT_DEAD));
    if (c & COMMAND_GONE) {
        CHECK(!a->bound);
        CHECK(event == EVENT_EXITED || event == EVENT_LAUNCH_FAILED ||
            (event == EVENT_GIVEN && before == ENVIRONMENT_IDLE));
    }
    /* States mean what they say. */
    bool works = t.next == ENVIRONMENT_BUSY || t.next == ENVIRONMENT_REPLYING || t.next == ENVIRONMENT_SETTLING ||
        t.next == ENVIRONMENT_FAILING;
    CHECK(a->bound == works);
    if (works)
        CHECK(a->answered == (t.next == ENVIRONMENT_SETTLING));
    CHECK((t.next == ENVIRONMENT_IDLE) == a->offered || t.next == ENVIRONMENT_DEAD);
    CHECK(a->ended == (t.next == ENVIRONMENT_STOPPING) || t.next == ENVIRONMENT_DEAD);
    CHECK((a->awaited && !a->ended) == (t.next == ENVIRONMENT_FAILING || t.next == ENVIRONMENT_INIT_FAILING) ||
        t.next == ENVIRONMENT_DEAD);
    CHECK(!a->waited || a->retired || (t.next != ENVIRONMENT_STOPPING && t.next != ENVIRONMENT_DEAD));
    if (a->channel && t.next != ENVIRONMENT_DEAD)
        CHECK(environment_next(t.next, EVENT_VIOLATION, &t) == 0 && environment_next(t.next, EVENT_EXITED, &t) == 0);
}

static void walk(enum environment_state state, struct account account) {
    if (state == ENVIRONMENT_DEAD)
        ends++;
    if (length == DEPTH)
        return;
    for (int event = 0; event < ENVIRONMENT_EVENTS_N; event++) {
        struct transition transition;
        struct account after = account;
        if (environment_next(state, (enum environment_event)event, &transition) < 0)
            continue;
        /* The scheduler assigns to idle environments only; LAUNCHED and the like come once. */
        path[length++] = (enum environment_event)event;
        apply(&after, state, (enum environment_event)event, transition);
        steps++;
        walk(transition.next, after);
        length--;
    }
}

/* From everywhere, what the launcher says last leads to the end, and RETIRE is always heard. */
static void test_every_state(void) {
    for (int state = 0; state < ENVIRONMENT_STATES_N; state++) {
        struct transition t = {.next = ENVIRONMENT_STATES_N, .commands = 0xa5a5};
        enum environment_event last = state == ENVIRONMENT_LAUNCHING ? EVENT_LAUNCH_FAILED : EVENT_EXITED;
        if (state == ENVIRONMENT_DEAD) {
            for (int event = 0; event < ENVIRONMENT_EVENTS_N; event++)
                CHECK(environment_next(state, (enum environment_event)event, &t) < 0);
            CHECK(t.next == ENVIRONMENT_STATES_N && t.commands == 0xa5a5);
            continue;
        }
        CHECK(environment_next((enum environment_state)state, last, &t) == 0 && t.next == ENVIRONMENT_DEAD);
        CHECK(environment_next((enum environment_state)state, EVENT_RETIRE, &t) == 0);
        CHECK(strcmp(environment_state_name((enum environment_state)state), "?") != 0);
        CHECK(environment_state_wire((enum environment_state)state) != 0);
    }
}

/* What must be possible, state by state: the protocol's own course, the timers that run then, and crossed messages. */
static void test_course(void) {
    static const struct {
        enum environment_state from;
        enum environment_event event;
        enum environment_state to;
    } course[] = {
        {ENVIRONMENT_LAUNCHING, EVENT_LAUNCHED, ENVIRONMENT_INITIALIZING},
        {ENVIRONMENT_LAUNCHING, EVENT_INIT_TIMEOUT, ENVIRONMENT_STOPPING},
        {ENVIRONMENT_LAUNCHING, EVENT_TIMEOUT, ENVIRONMENT_STOPPING},
        {ENVIRONMENT_INITIALIZING, EVENT_INIT_DONE, ENVIRONMENT_IDLE},
        {ENVIRONMENT_INITIALIZING, EVENT_INIT_ERROR, ENVIRONMENT_STOPPING},
        {ENVIRONMENT_INITIALIZING, EVENT_INIT_TIMEOUT, ENVIRONMENT_STOPPING},
        {ENVIRONMENT_INITIALIZING, EVENT_TIMEOUT, ENVIRONMENT_STOPPING},
        {ENVIRONMENT_IDLE, EVENT_ASSIGN, ENVIRONMENT_BUSY},
        {ENVIRONMENT_BUSY, EVENT_RESULT_READY, ENVIRONMENT_IDLE},
        {ENVIRONMENT_BUSY, EVENT_RESULT, ENVIRONMENT_SETTLING},
        {ENVIRONMENT_BUSY, EVENT_RESULT_PART, ENVIRONMENT_REPLYING},
        {ENVIRONMENT_BUSY, EVENT_TIMEOUT, ENVIRONMENT_STOPPING},
        {ENVIRONMENT_BUSY, EVENT_UNREAD, ENVIRONMENT_STOPPING},
        {ENVIRONMENT_REPLYING, EVENT_BODY_DONE_READY, ENVIRONMENT_IDLE},
        {ENVIRONMENT_REPLYING, EVENT_BODY_DONE, ENVIRONMENT_SETTLING},
        {ENVIRONMENT_REPLYING, EVENT_TIMEOUT, ENVIRONMENT_STOPPING},
        {ENVIRONMENT_SETTLING, EVENT_READY, ENVIRONMENT_IDLE},
        {ENVIRONMENT_SETTLING, EVENT_TIMEOUT, ENVIRONMENT_STOPPING},
        {ENVIRONMENT_INIT_FAILING, EVENT_TIMEOUT, ENVIRONMENT_STOPPING},
        {ENVIRONMENT_FAILING, EVENT_TIMEOUT, ENVIRONMENT_STOPPING},
        {ENVIRONMENT_STOPPING, EVENT_LAUNCHED, ENVIRONMENT_STOPPING},
        {ENVIRONMENT_STOPPING, EVENT_LAUNCH_FAILED, ENVIRONMENT_DEAD},
    };
    struct transition t;
    for (size_t i = 0; i < ARRAY_SIZE(course); i++)
        CHECK(environment_next(course[i].from, course[i].event, &t) == 0 && t.next == course[i].to);
}

/* An event of the environment's own that is not listed is a violation, which is listed wherever its channel is open. */
static void test_violations(void) {
    static const enum environment_state open[] = {
        ENVIRONMENT_INITIALIZING, ENVIRONMENT_IDLE, ENVIRONMENT_BUSY, ENVIRONMENT_REPLYING, ENVIRONMENT_SETTLING};
    struct transition t;
    for (size_t i = 0; i < ARRAY_SIZE(open); i++) {
        CHECK(environment_next(open[i], EVENT_VIOLATION, &t) == 0);
        CHECK(t.next == ENVIRONMENT_STOPPING && (t.commands & COMMAND_END) != 0);
        CHECK(environment_next(open[i], EVENT_HANGUP, &t) == 0);
        CHECK(environment_next(open[i], EVENT_EXITED, &t) == 0);
    }
    CHECK(environment_event_is_its_own(EVENT_READY) && !environment_event_is_its_own(EVENT_EXITED));
}

int main(void) {
    test_every_state();
    test_course();
    test_violations();
    walk(ENVIRONMENT_LAUNCHING, (struct account){.waited = true});
    printf("%lu steps, %lu ends to depth %d\n", steps, ends, DEPTH);
    return 0;
}
