/* Targets and functions; see the header. */
#include "dispatch/target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/dispatch.h"
#include "dispatch/invocation.h"
#include "dispatch/perform.h"
#include "dispatch/schedule.h"

#define MEMORY_MB_MAX 32768u
#define TIMEOUT_MS_MAX (90u * 60u * 1000u)
#define ENVIRONMENTS_MAX 100000u

/* ---- functions ------------------------------------------------------------------------------------------------- */

static uint64_t uid_key(const uint8_t uid[16]) {
    uint64_t key;
    memcpy(&key, uid, sizeof(key));
    return key;
}

static struct function *function_take(struct dispatch *dispatch, const uint8_t uid[16]) {
    struct function *first = table_get(&dispatch->targets.functions, uid_key(uid)), *function = first;

    while (function != NULL && memcmp(function->uid, uid, 16) != 0)
        function = function->next;
    if (function != NULL) {
        function->targets++;
        return function;
    }
    function = calloc(1, sizeof(*function));
    if (function == NULL)
        return NULL;
    memcpy(function->uid, uid, 16);
    function->next = first;
    function->common = common_function_take(dispatch->loops, uid);
    if (function->common == NULL || table_put(&dispatch->targets.functions, uid_key(uid), function) < 0) {
        if (function->common != NULL)
            common_function_let_go(dispatch->loops, function->common);
        free(function);
        return NULL;
    }
    function->targets = 1;
    return function;
}

static void function_let_go(struct dispatch *dispatch, struct function *function) {
    struct function *first;

    if (--function->targets > 0)
        return;
    first = table_get(&dispatch->targets.functions, uid_key(function->uid));
    if (first == function) {
        table_remove(&dispatch->targets.functions, uid_key(function->uid));
        if (function->next != NULL)
            (void)table_put(&dispatch->targets.functions, uid_key(function->uid), function->next);
    } else {
        while (first->next != function)
            first = first->next;
        first->next = function->next;
    }
    common_function_let_go(dispatch->loops, function->common);
    free(function);
}

/* ---- targets --------------------------------------------------------------------------------------------------- */

static const char *wrong_field(const struct wire_header *header, const struct wire_put_target *m) {
    if (header->object == 0 || header->object == UINT64_MAX)
        return "object";
    if (m->function_name.size == 0)
        return "function_name";
    if (m->function_version.size == 0)
        return "function_version";
    if (m->memory_mb == 0 || m->memory_mb > MEMORY_MB_MAX)
        return "memory_mb";
    if (m->timeout_ms == 0 || m->timeout_ms > TIMEOUT_MS_MAX)
        return "timeout_ms";
    if (m->init_timeout_ms == 0 || m->init_timeout_ms > TIMEOUT_MS_MAX)
        return "init_timeout_ms";
    if (m->max_environments == 0 || m->max_environments > ENVIRONMENTS_MAX)
        return "max_environments";
    if (m->log_format > WIRE_LOG_FORMAT_JSON)
        return "log_format";
    if (m->runtime_api > 1)
        return "runtime_api";
    return NULL;
}

static void copy_text(char *into, struct wire_slice slice) {
    if (slice.size > 0)
        memcpy(into, slice.data, slice.size);
    into[slice.size] = '\0';
}

static void on_timer(struct timer *timer, uint64_t now) {
    (void)now;
    schedule_timer(list_entry(timer, struct target, timer));
}

static void target_free(struct target *target) {
    struct dispatch *dispatch = target->dispatch;
    timer_drop(&dispatch->loop.timers, &target->timer);
    ahead_done(target);
    room_want(target, 0);
    list_remove(&target->idle_room);
    free(target->worth);
    list_remove(&target->dirty);
    counters_give_back(&dispatch->counters, target->slot);
    if (dispatch->number == 0)
        inherit_forget(dispatch, target->id);
    common_target_let_go(dispatch->loops, target->common);
    function_let_go(dispatch, target->function);
    free(target->configuration);
    free(target->elsewhere);
    free(target);
}

static struct target *target_new(
    struct dispatch *dispatch, const struct wire_header *header, const struct wire_put_target *message) {
    struct target *target = calloc(1, sizeof(*target));

    if (target == NULL)
        return NULL;
    target->function = function_take(dispatch, message->function_uid);
    if (target->function == NULL) {
        free(target);
        return NULL;
    }
    target->common = common_target_take(dispatch->loops, header->object);
    if (target->common == NULL) {
        function_let_go(dispatch, target->function);
        free(target);
        return NULL;
    }
    target->id = header->object;
    target->dispatch = dispatch;
    target->slot = counters_take(&dispatch->counters, target->id, message->function_uid);
    target->idle_times.counts = counters_idle_of(&dispatch->counters, target->slot);
    ahead_init(target);
    list_init(&target->environments);
    list_init(&target->idle);
    list_init(&target->waiting);
    list_init(&target->dirty);
    list_init(&target->room);
    list_init(&target->idle_room);
    timer_init(&target->timer, on_timer);
    if (table_put(&dispatch->targets.by_id, target->id, target) < 0) {
        target_free(target);
        return NULL;
    }
    return target;
}

static void fill(struct target *target, const struct wire_header *header, const struct wire_put_target *m) {
    target->generation = header->generation;
    target->plan = m->plan;
    copy_text(target->function_name, m->function_name);
    copy_text(target->version, m->function_version);
    copy_text(target->arn, m->arn);
    target->version_number = (uint32_t)(strtoul(target->version, NULL, 10) & 0xffffff);
    target->memory_mb = m->memory_mb;
    target->timeout_ms = m->timeout_ms;
    target->init_timeout_ms = m->init_timeout_ms;
    target->keep_alive_ms = m->keep_alive_ms;
    target->freeze_after_ms = m->freeze_after_ms;
    target->max_environments = m->max_environments;
    target->max_waiting = m->max_waiting;
    target->log_format = m->log_format;
    target->runtime_api = m->runtime_api != 0;
}

int target_put(struct dispatch *dispatch, const struct wire_header *header, const struct wire_put_target *message,
    const char **ret_field) {
    struct target *target = table_get(&dispatch->targets.by_id, header->object);
    const char *wrong = wrong_field(header, message);
    _cleanup_free_ uint8_t *configuration = NULL;

    if (wrong == NULL && target != NULL && memcmp(target->function->uid, message->function_uid, 16) != 0)
        wrong = "function_uid";
    if (wrong != NULL) {
        *ret_field = wrong;
        return -EINVAL;
    }
    if (target != NULL) {
        target->mark = dispatch->control.mark;
        if (header->generation <= target->generation && !target->retired)
            return 0;
    }
    configuration = malloc(message->configuration.size + 1);
    if (configuration == NULL)
        return -ENOMEM;
    if (target == NULL)
        target = target_new(dispatch, header, message);
    if (target == NULL)
        return -ENOMEM;
    if (message->configuration.size > 0)
        memcpy(configuration, message->configuration.data, message->configuration.size);
    free(target->configuration);
    target->configuration = steal_pointer(configuration);
    target->configuration_size = message->configuration.size;
    dispatch->targets.n_retired -= target->retired;
    target->retired = false;
    target->mark = dispatch->control.mark;
    fill(target, header, message);
    pool_resize(&target->common->pools.load, (int64_t)target->max_environments + target->max_waiting);
    admission_reserve(&dispatch->loops->account, &target->function->common->concurrency, message->max_concurrency);
    schedule_target(target);
    return 0;
}

struct target *target_find(struct dispatch *dispatch, uint64_t id) {
    struct target *target = table_get(&dispatch->targets.by_id, id);
    return target != NULL && !target->retired ? target : NULL;
}

/* arn:PARTITION:lambda:REGION:ACCOUNT:... */
bool target_is_at(const struct target *target, struct wire_slice region, struct wire_slice account) {
    const char *at = target->arn;
    for (unsigned part = 0; part < 5; part++) {
        size_t size = strcspn(at, ":");
        struct wire_slice wanted = part == 3 ? region : account;
        if (part >= 3 && wanted.size > 0 && (wanted.size != size || memcmp(wanted.data, at, size) != 0))
            return false;
        at += size + (at[size] == ':');
    }
    return true;
}

/* Idle environments end; starting ones are looked at when they are ready. */
static void retire(struct target *target) {
    target->retired = true;
    admission_provision(
        &target->dispatch->loops->account, &target->function->common->concurrency, &target->common->pools, 0);
    target->dispatch->targets.n_retired++;
    while (!list_empty(&target->idle))
        environment_handle(list_entry(target->idle.next, struct environment, idle), EVENT_RETIRE, NULL);
    while (!list_empty(&target->ahead.idle))
        environment_handle(list_entry(target->ahead.idle.next, struct environment, idle), EVENT_RETIRE, NULL);
}

void target_settle(struct target *target) {
    /* With several loops others may still send an environment of it here. */
    if (!target->retired || target->in_flight > 0 || !list_empty(&target->environments) ||
        target->dispatch->loops->n > 1)
        return;
    targets_forget(target->dispatch, target->id);
}

void targets_forget(struct dispatch *dispatch, uint64_t id) {
    struct target *target = table_get(&dispatch->targets.by_id, id);
    if (target == NULL)
        return;
    dispatch->targets.n_retired--;
    table_remove(&dispatch->targets.by_id, id);
    target_free(target);
}

void target_del(struct dispatch *dispatch, uint64_t id) {
    struct target *target = target_find(dispatch, id);
    if (target == NULL)
        return;
    retire(target);
    target_settle(target);
}

void targets_sweep(struct dispatch *dispatch) {
    struct target *target;
    size_t at = 0;
    while ((target = table_next(&dispatch->targets.by_id, &at)) != NULL) {
        if (target->mark == dispatch->control.mark || target->retired)
            continue;
        retire(target);
        target_settle(target);
        at = 0; /* removal may have moved others in front of this place */
    }
}

void targets_done(struct dispatch *dispatch) {
    struct target *target;
    size_t at = 0;
    while ((target = table_next(&dispatch->targets.by_id, &at)) != NULL) {
        while (!list_empty(&target->waiting))
            invocation_free(list_entry(target->waiting.next, struct invocation, waiting));
        target_free(target);
    }
    table_done(&dispatch->targets.by_id);
    table_done(&dispatch->targets.functions);
}

/* ---- counts ---------------------------------------------------------------------------------------------------- */

uint32_t target_starting(const struct target *target) {
    return target->in_state[ENVIRONMENT_LAUNCHING] + target->in_state[ENVIRONMENT_INITIALIZING] +
        target->in_state[ENVIRONMENT_INIT_FAILING] - target->reserved_starting;
}

uint32_t target_busy(const struct target *target) {
    return target->in_state[ENVIRONMENT_BUSY] + target->in_state[ENVIRONMENT_REPLYING] +
        target->in_state[ENVIRONMENT_SETTLING];
}

uint32_t target_established(const struct target *target) {
    return target->in_state[ENVIRONMENT_IDLE] + target_busy(target);
}

/* Not ending. */
static bool is_live(enum environment_state state) {
    return state != ENVIRONMENT_FAILING && state != ENVIRONMENT_STOPPING && state != ENVIRONMENT_DEAD;
}

void target_count(struct target *target, enum environment_state before, enum environment_state next) {
    target->in_state[before]--;
    target->in_state[next]++;
    if (is_live(before) && !is_live(next))
        atomic_fetch_sub(&target->common->live, 1);
    target_show(target);
}

void target_show(struct target *target) {
    struct common_view *view;
    uint32_t idle = target->in_state[ENVIRONMENT_IDLE] - target->departing;

    if (target->common->views == NULL)
        return;
    view = &target->common->views[target->dispatch->number];
    atomic_store_explicit(&view->established, target_established(target), memory_order_relaxed);
    /* In one total order with what others do on being hungry. */
    if (atomic_load_explicit(&view->idle, memory_order_relaxed) != idle)
        atomic_store(&view->idle, idle);
}

uint32_t target_established_anywhere(const struct target *target) {
    const struct loops *loops = target->dispatch->loops;
    uint32_t established = target_established(target);
    for (unsigned i = 0; target->common->views != NULL && i < loops->n; i++)
        if (i != target->dispatch->number)
            established += atomic_load_explicit(&target->common->views[i].established, memory_order_relaxed);
    return established;
}

struct target *target_resolve(struct dispatch *dispatch, struct wire_slice name, struct wire_slice qualifier) {
    static const struct wire_slice latest = {(const uint8_t *)"$LATEST", 7};
    const struct route *route = routes_find(&dispatch->routes, name, qualifier);
    /* No qualifier means $LATEST, whether or not there is a route for the bare name. */
    if (route == NULL && qualifier.size == 0)
        route = routes_find(&dispatch->routes, name, latest);
    return route != NULL ? target_find(dispatch, route_pick(route, random_u16(&dispatch->randomness))) : NULL;
}

uint16_t target_share(const struct target *target) {
    uint32_t hash;
    memcpy(&hash, target->function->uid, sizeof(hash));
    return (uint16_t)(hash % BUDGET_SHARES);
}
