/* The rules of the Runtime API; see the header. */
#include "dispatch/runtime_api.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/h1.h"

struct cell {
    uint8_t listed, next;
    uint32_t actions;
};

static const struct cell cells[RUNTIME_STATES_N][RUNTIME_CALLS_N] = {
#define T(state, call, to, what) [RUNTIME_##state][RUNTIME_CALL_##call] = {1, RUNTIME_##to, what},
    RUNTIME_TRANSITIONS(T)
#undef T
};

int runtime_next(enum runtime_state state, enum runtime_call call, struct runtime_transition *ret_transition) {
    const struct cell *cell = &cells[state][call];
    if (!cell->listed)
        return -EPROTO;
    *ret_transition = (struct runtime_transition){.next = cell->next, .actions = cell->actions};
    return 0;
}

const char *runtime_state_name(enum runtime_state state) {
    static const char *const names[] = {
#define X(name, text) text,
        RUNTIME_STATES(X)
#undef X
    };
    return (size_t)state < ARRAY_SIZE(names) ? names[state] : "?";
}

const char *runtime_call_name(enum runtime_call call) {
    static const char *const names[] = {
#define X(name, text) text,
        RUNTIME_CALLS(X)
#undef X
    };
    return (size_t)call < ARRAY_SIZE(names) ? names[call] : "?";
}

/* ---- paths ------------------------------------------------------------------------------------------------------ */

static bool is(struct wire_slice slice, const char *text) {
    return slice.size == strlen(text) && memcmp(slice.data, text, slice.size) == 0;
}

/* Cuts it off the front. */
static bool take(struct wire_slice *slice, const char *prefix) {
    size_t n = strlen(prefix);
    if (slice->size < n || memcmp(slice->data, prefix, n) != 0)
        return false;
    slice->data += n;
    slice->size -= (uint32_t)n;
    return true;
}

static enum runtime_path by_method(struct wire_slice method, const char *wanted, enum runtime_path path) {
    return is(method, wanted) ? path : RUNTIME_PATH_METHOD;
}

enum runtime_path runtime_path_read(
    struct wire_slice method, struct wire_slice target, enum runtime_call *ret_call, struct wire_slice *ret_id) {
    const uint8_t *query = target.size > 0 ? memchr(target.data, '?', target.size) : NULL;
    const uint8_t *slash;

    *ret_id = (struct wire_slice){target.data, 0};
    if (query != NULL)
        target.size = (uint32_t)(query - target.data);
    if (!take(&target, "/2018-06-01/"))
        return RUNTIME_PATH_UNKNOWN;
    if (is(target, "ping"))
        return by_method(method, "GET", RUNTIME_PATH_PING);
    if (!take(&target, "runtime/"))
        return RUNTIME_PATH_UNKNOWN;
    *ret_call = RUNTIME_CALL_INIT_ERROR;
    if (is(target, "init/error"))
        return by_method(method, "POST", RUNTIME_PATH_CALL);
    *ret_call = RUNTIME_CALL_NEXT;
    if (is(target, "invocation/next"))
        return by_method(method, "GET", RUNTIME_PATH_CALL);
    if (!take(&target, "invocation/") || target.size == 0)
        return RUNTIME_PATH_UNKNOWN;
    slash = memchr(target.data, '/', target.size);
    if (slash == NULL || slash == target.data)
        return RUNTIME_PATH_UNKNOWN;
    *ret_id = (struct wire_slice){target.data, (uint32_t)(slash - target.data)};
    target = (struct wire_slice){slash, target.size - ret_id->size};
    if (!is(target, "/response") && !is(target, "/error"))
        return RUNTIME_PATH_UNKNOWN;
    *ret_call = is(target, "/response") ? RUNTIME_CALL_RESPONSE : RUNTIME_CALL_ERROR;
    return by_method(method, "POST", RUNTIME_PATH_CALL);
}

/* ---- error types ------------------------------------------------------------------------------------------------ */

static bool is_letter(uint8_t c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* Somewhere in it: the prefix, a capital, a letter. */
static bool names(struct wire_slice text, const char *prefix) {
    uint32_t n = (uint32_t)strlen(prefix);
    for (uint32_t i = 0; i + n + 2 <= text.size; i++)
        if (memcmp(text.data + i, prefix, n) == 0 && text.data[i + n] >= 'A' && text.data[i + n] <= 'Z' &&
            is_letter(text.data[i + n + 1]))
            return true;
    return false;
}

static bool is_plain(struct wire_slice text) {
    for (uint32_t i = 0; i < text.size; i++)
        if (text.data[i] < 0x20 || text.data[i] > 0x7e)
            return false;
    return text.size <= WIRE_RESULT_ERROR_TYPE_MAX;
}

void runtime_error_type(struct wire_slice given, char ret_type[WIRE_RESULT_ERROR_TYPE_MAX + 1]) {
    struct wire_slice rest = given;
    const char *type = take(&rest, "Function.") ? "Function.Unknown" : "Runtime.Unknown";
    if (is_plain(given) && (names(given, "Runtime.") || names(given, "Function.")))
        snprintf(ret_type, WIRE_RESULT_ERROR_TYPE_MAX + 1, "%.*s", (int)given.size, (const char *)given.data);
    else
        snprintf(ret_type, WIRE_RESULT_ERROR_TYPE_MAX + 1, "%s", type);
}
