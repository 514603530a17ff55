/* The rules of the Runtime API: every sequence of calls to a depth, with a small account of what the actions mean;
 * paths; error types. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/runtime_api.h"

#define DEPTH 12

static enum runtime_call path[DEPTH];
static int length;
static unsigned long steps;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail(__LINE__, #condition);                                                                                \
    } while (0)

static void fail(int line, const char *condition) {
    fprintf(stderr, "%s:%d: %s, after", __FILE__, line, condition);
    for (int i = 0; i < length; i++)
        fprintf(stderr, " %s", runtime_call_name(path[i]));
    fputc('\n', stderr);
    exit(1);
}

/* What has happened so far. */
struct account {
    bool initialized, failed;
    bool ready; /* told that it is free: INIT_DONE or READY, and nothing assigned since */
    bool bound; /* has an event that it has not answered */
    bool owed;  /* has answered, and not asked again */
};

static void apply(struct account *a, enum runtime_call call, struct runtime_transition t) {
    uint32_t actions = t.actions;

    CHECK(!a->failed);
    CHECK(__builtin_popcount(actions) <= 1);
    if (actions & RUNTIME_INITIALIZED) {
        CHECK(!a->initialized && call == RUNTIME_CALL_NEXT);
        a->initialized = a->ready = true;
    }
    if (actions & RUNTIME_FAIL_INIT) {
        CHECK(!a->initialized && call == RUNTIME_CALL_INIT_ERROR);
        a->failed = true;
    }
    if (call == RUNTIME_CALL_ASSIGN) {
        CHECK(a->ready && !a->bound && (actions & RUNTIME_DELIVER));
        a->ready = false;
        a->bound = true;
    }
    if (actions & RUNTIME_DELIVER)
        CHECK(a->bound);
    if (actions & RUNTIME_ANSWER) {
        CHECK(a->bound && (call == RUNTIME_CALL_RESPONSE || call == RUNTIME_CALL_ERROR));
        a->bound = false;
        a->owed = true;
    }
    if (actions & RUNTIME_SETTLED) {
        CHECK(a->owed && call == RUNTIME_CALL_NEXT);
        a->owed = false;
        a->ready = true;
    }
    CHECK(a->ready == (t.next == RUNTIME_READY));
    CHECK(a->bound == (t.next == RUNTIME_RUNNING));
    CHECK(a->owed == (t.next == RUNTIME_ANSWERED));
    CHECK(a->failed == (t.next == RUNTIME_INIT_FAILED));
}

static void walk(enum runtime_state state, struct account account) {
    for (unsigned call = 0; length < DEPTH && call < RUNTIME_CALLS_N; call++) {
        struct runtime_transition t;
        struct account next = account;
        if (runtime_next(state, (enum runtime_call)call, &t) < 0)
            continue;
        path[length++] = (enum runtime_call)call;
        steps++;
        apply(&next, (enum runtime_call)call, t);
        walk(t.next, next);
        length--;
    }
}

static void test_pairs(void) {
    static const unsigned listed[RUNTIME_STATES_N] = {
        [RUNTIME_STARTED] = 1u << RUNTIME_CALL_NEXT | 1u << RUNTIME_CALL_INIT_ERROR,
        [RUNTIME_READY] = 1u << RUNTIME_CALL_NEXT | 1u << RUNTIME_CALL_ASSIGN,
        [RUNTIME_RUNNING] = 1u << RUNTIME_CALL_NEXT | 1u << RUNTIME_CALL_RESPONSE | 1u << RUNTIME_CALL_ERROR,
        [RUNTIME_ANSWERED] = 1u << RUNTIME_CALL_NEXT,
    };
    for (unsigned state = 0; state < RUNTIME_STATES_N; state++)
        for (unsigned call = 0; call < RUNTIME_CALLS_N; call++) {
            struct runtime_transition t;
            int r = runtime_next((enum runtime_state)state, (enum runtime_call)call, &t);
            CHECK((r == 0) == ((listed[state] >> call & 1) != 0));
        }
    CHECK(strcmp(runtime_state_name(RUNTIME_ANSWERED), "ResponseSent") == 0);
    CHECK(strcmp(runtime_call_name(RUNTIME_CALL_ERROR), "InvocationErrorResponse") == 0);
}

static struct wire_slice slice(const char *text) {
    return (struct wire_slice){(const uint8_t *)text, (uint32_t)strlen(text)};
}

static void test_paths(void) {
    static const struct {
        const char *method, *target, *id;
        enum runtime_path path;
        enum runtime_call call;
    } cases[] = {
        {"GET", "/2018-06-01/ping", "", RUNTIME_PATH_PING, 0},
        {"POST", "/2018-06-01/ping", "", RUNTIME_PATH_METHOD, 0},
        {"GET", "/2018-06-01/runtime/invocation/next", "", RUNTIME_PATH_CALL, RUNTIME_CALL_NEXT},
        {"GET", "/2018-06-01/runtime/invocation/next?a=/b", "", RUNTIME_PATH_CALL, RUNTIME_CALL_NEXT},
        {"POST", "/2018-06-01/runtime/invocation/next", "", RUNTIME_PATH_METHOD, 0},
        {"POST", "/2018-06-01/runtime/init/error", "", RUNTIME_PATH_CALL, RUNTIME_CALL_INIT_ERROR},
        {"POST", "/2018-06-01/runtime/invocation/x-1/response", "x-1", RUNTIME_PATH_CALL, RUNTIME_CALL_RESPONSE},
        {"POST", "/2018-06-01/runtime/invocation/x-1/error", "x-1", RUNTIME_PATH_CALL, RUNTIME_CALL_ERROR},
        {"GET", "/2018-06-01/runtime/invocation/x-1/error", "x-1", RUNTIME_PATH_METHOD, 0},
        {"post", "/2018-06-01/runtime/init/error", "", RUNTIME_PATH_METHOD, 0},
        {"POST", "/2018-06-01/runtime/invocation//response", "", RUNTIME_PATH_UNKNOWN, 0},
        {"POST", "/2018-06-01/runtime/invocation/", "", RUNTIME_PATH_UNKNOWN, 0},
        {"POST", "/2018-06-01/runtime/invocation/x/y/response", "x", RUNTIME_PATH_UNKNOWN, 0},
        {"GET", "/2018-06-01/runtime/restore/next", "", RUNTIME_PATH_UNKNOWN, 0},
        {"GET", "/", "", RUNTIME_PATH_UNKNOWN, 0},
        {"GET", "?", "", RUNTIME_PATH_UNKNOWN, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        enum runtime_call call = RUNTIME_CALL_ASSIGN;
        struct wire_slice id;
        enum runtime_path found = runtime_path_read(slice(cases[i].method), slice(cases[i].target), &call, &id);
        if (found != cases[i].path || (found == RUNTIME_PATH_CALL && call != cases[i].call) ||
            id.size != strlen(cases[i].id) || memcmp(id.data, cases[i].id, id.size) != 0) {
            fprintf(stderr, "%s %s: %d %d %.*s\n", cases[i].method, cases[i].target, found, call, (int)id.size,
                (const char *)id.data);
            exit(1);
        }
    }
}

static void test_error_types(void) {
    static const struct {
        const char *given, *type;
    } cases[] = {
        {"", "Runtime.Unknown"},
        {"ValueError", "Runtime.Unknown"},
        {"Runtime.ImportModuleError", "Runtime.ImportModuleError"},
        {"Function.Mine", "Function.Mine"},
        {"Function.mine", "Function.Unknown"},
        {"Function.", "Function.Unknown"},
        {"Function.M", "Function.Unknown"},
        {"Function.M1", "Function.Unknown"},
        {"Runtime.lower", "Runtime.Unknown"},
        {"x.Runtime.Inside y", "x.Runtime.Inside y"},
        {"Runtime.Um\xc3\xa4", "Runtime.Unknown"},
    };
    char type[WIRE_RESULT_ERROR_TYPE_MAX + 1], text[WIRE_RESULT_ERROR_TYPE_MAX + 2] = "Runtime.";
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        runtime_error_type(slice(cases[i].given), type);
        if (strcmp(type, cases[i].type) != 0) {
            fprintf(stderr, "%s: %s\n", cases[i].given, type);
            exit(1);
        }
    }
    memset(text + 8, 'A', sizeof(text) - 9);
    text[WIRE_RESULT_ERROR_TYPE_MAX] = '\0';
    runtime_error_type(slice(text), type);
    CHECK(strcmp(type, text) == 0);
    text[WIRE_RESULT_ERROR_TYPE_MAX] = 'A';
    runtime_error_type(slice(text), type);
    CHECK(strcmp(type, "Runtime.Unknown") == 0);
}

int main(void) {
    test_pairs();
    walk(RUNTIME_STARTED, (struct account){.initialized = false});
    CHECK(steps > 1000);
    test_paths();
    test_error_types();
    return 0;
}
