/* Rules of asynchronous invocation: the loop passes on what the control plane puts; the thread keeps them. Which one holds
 * for an event: that of its qualifier, else that of its function, else the node's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "event_parts.h"

static const uint8_t zeros[16];

void rules_init(struct rules *rules) {
    *rules = (struct rules){
        .node = {
            .retries = 2, .base_delay_ms = 60000, .max_age_ms = 6 * 3600 * 1000, .chain_max = 16, .dead_max = 10000}};
}

void rules_done(struct rules *rules) {
    struct rule *rule;
    size_t at = 0;
    while ((rule = table_next(&rules->by_object, &at)) != NULL)
        free(rule);
    table_done(&rules->by_object);
    table_done(&rules->by_name);
}

/* FNV-1a. Functions' uids are the control plane's, a qualifier is its function's: nobody can lengthen another's chain. */
static uint64_t name_key(const uint8_t uid[16], const void *qualifier, size_t size) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < 16 + size; i++)
        hash = (hash ^ (i < 16 ? uid[i] : ((const uint8_t *)qualifier)[i - 16])) * 0x100000001b3u;
    return hash;
}

static uint64_t key_of(const struct rule *rule) {
    return name_key(rule->uid, rule->qualifier, rule->qualifier_size);
}

struct rule *rules_take(struct rules *rules, uint64_t object) {
    struct rule *rule = table_remove(&rules->by_object, object);
    if (rule == NULL)
        return NULL;
    struct rule *first = table_get(&rules->by_name, key_of(rule)), **at = &first;
    while (*at != rule)
        at = &(*at)->next;
    *at = rule->next;
    (void)table_remove(&rules->by_name, key_of(rule));
    if (first != NULL)
        (void)table_put(&rules->by_name, key_of(rule), first); /* there is room: one was just removed */
    return rule;
}

int rules_put(struct rules *rules, struct rule *rule) {
    free(rules_take(rules, rule->object));
    int r = table_put(&rules->by_object, rule->object, rule);
    if (r < 0)
        return r;
    rule->next = table_get(&rules->by_name, key_of(rule));
    r = table_put(&rules->by_name, key_of(rule), rule);
    if (r < 0)
        (void)table_remove(&rules->by_object, rule->object);
    return r;
}

static const struct rule *find_named(const struct rules *rules, const uint8_t uid[16], const void *name, size_t size) {
    const struct rule *rule = table_get(&rules->by_name, name_key(uid, name, size));
    while (rule != NULL &&
        (memcmp(rule->uid, uid, 16) != 0 || rule->qualifier_size != size ||
            (size > 0 && memcmp(rule->qualifier, name, size) != 0)))
        rule = rule->next;
    return rule;
}

const struct rule *rules_find(const struct rules *rules, const uint8_t uid[16], struct wire_slice qualifier) {
    if (qualifier.size == 0)
        qualifier = (struct wire_slice){(const uint8_t *)"$LATEST", 7};
    const struct rule *rule = find_named(rules, uid, qualifier.data, qualifier.size);
    if (rule != NULL)
        return rule;
    rule = find_named(rules, uid, NULL, 0);
    return rule != NULL && rule->max_age_ms != 0 ? rule
                                                 : &rules->node; /* 0: it only says that its queue stands still */
}

/* ---- in the thread ---------------------------------------------------------------------------------------------- */

static void pause_queue(struct events *events, const struct rule *rule, bool paused) {
    if (rule->qualifier_size > 0 || memcmp(rule->uid, zeros, 16) == 0)
        return;
    struct queue *queue = queues_find(&events->queues, rule->uid);
    if (queue == NULL)
        return;
    queue_pause(&events->queues, queue, paused);
    queue_dirty(events, queue);
}

static void drop_rule(struct events *events, uint64_t object) {
    struct rule *rule = rules_take(&events->rules, object);
    if (rule != NULL && events->state == EVENTS_OPEN)
        pause_queue(events, rule, false);
    free(rule);
}

void events_apply_pauses(struct events *events) {
    const struct rule *rule;
    size_t at = 0;
    while ((rule = table_next(&events->rules.by_object, &at)) != NULL)
        if (rule->paused)
            pause_queue(events, rule, true);
}

static void take_rule(struct events *events, struct note *note) {
    struct rule *rule = list_entry(note, struct rule, note);
    if (rule->remove) {
        drop_rule(events, rule->object);
        free(rule);
        return;
    }
    if (memcmp(rule->uid, zeros, 16) == 0) {
        events->rules.node = *rule;
        free(rule);
        return;
    }
    const struct rule *before = table_get(&events->rules.by_object, rule->object);
    if (before != NULL && (memcmp(before->uid, rule->uid, 16) != 0 || (before->paused && !rule->paused)))
        drop_rule(events, rule->object);
    if (rules_put(&events->rules, rule) < 0) {
        free(rule);
        return;
    }
    if (rule->paused && events->state == EVENTS_OPEN)
        pause_queue(events, rule, true);
}

static void sweep(struct events *events, struct note *note) {
    struct rule *order = list_entry(note, struct rule, note), *rule;
    for (;;) {
        size_t at = 0;
        while ((rule = table_next(&events->rules.by_object, &at)) != NULL && rule->mark == order->mark) {
        }
        if (rule == NULL)
            break;
        drop_rule(events, rule->object);
    }
    free(order);
}

/* ---- on the loop ------------------------------------------------------------------------------------------------ */

int events_put_rule(struct dispatch *dispatch, uint64_t object, const struct wire_put_async *message, uint32_t mark) {
    if (dispatch->loops->events == NULL)
        return 0;
    struct rule *rule = calloc(1, sizeof(*rule));
    if (rule == NULL)
        return -ENOMEM;
    rule->object = object;
    rule->mark = mark;
    memcpy(rule->uid, message->function_uid, 16);
    rule->paused = message->paused != 0;
    rule->retries = MIN(message->retries, RETRIES_MAX);
    rule->base_delay_ms = message->base_delay_ms;
    rule->max_age_ms = message->max_age_ms;
    rule->chain_max = message->chain_max;
    rule->dead_max = message->dead_max;
    rule->qualifier_size = (uint16_t)message->qualifier.size;
    if (message->qualifier.size > 0)
        memcpy(rule->qualifier, message->qualifier.data, message->qualifier.size);
    events_post(dispatch->loops->events, &rule->note, take_rule);
    return 0;
}

void events_del_rule(struct dispatch *dispatch, uint64_t object) {
    struct rule *rule = dispatch->loops->events != NULL ? calloc(1, sizeof(*rule)) : NULL;
    if (rule == NULL)
        return;
    rule->object = object;
    rule->remove = true;
    events_post(dispatch->loops->events, &rule->note, take_rule);
}

void events_sweep_rules(struct dispatch *dispatch, uint32_t mark) {
    struct rule *rule = dispatch->loops->events != NULL ? calloc(1, sizeof(*rule)) : NULL;
    if (rule == NULL)
        return;
    rule->mark = mark;
    events_post(dispatch->loops->events, &rule->note, sweep);
}
