/* A caller's event: from its loop to the log, and back when it is on the disk. See events.h. */
#define OPENSSL_SUPPRESS_DEPRECATED 1 /* the plain functions bring their own code and nothing else of libcrypto */
#include <errno.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/exchange.h"
#include "event_parts.h"

/* ---- in the thread ---------------------------------------------------------------------------------------------- */

static void answer(struct dispatch *dispatch, struct mail *mail);

void accept_done(struct events *events, struct accept *accept, int result) {
    struct counters_node *node = events_counters(events);
    accept->result = result;
    if (result == 0)
        count_one(&node->events_accepted);
    else if (result == -EALREADY)
        count_one(&node->events_duplicate);
    else
        count_one(&node->events_refused);
    accept->note.mail.deliver = answer;
    events_bundle(&accept->dispatch->events.answers, &accept->note.mail);
}

void accept_stored(void *context, uint64_t tag, int result, struct place place) {
    struct accept *accept = (struct accept *)(uintptr_t)tag;
    (void)place;
    if (tag == UINT64_MAX)
        return;
    struct queue *queue = queues_find(&((struct events *)context)->queues, accept->uid);
    if (queue != NULL)
        queue_dirty(context, queue);
    accept_done(context, accept, result);
}

void accept_try(struct events *events, struct accept *accept) {
    const struct request *request = accept->request;
    const struct event_head head = {
        .name = request->name, .qualifier = request->qualifier, .trace = request->trace, .tenant = request->tenant};
    uint8_t bytes[EVENT_HEAD_MAX];
    struct record_event event = {.accepted_ms = clock_real_us() / 1000,
        .key = accept->key,
        .digest = accept->digest,
        .depth = event_depth(request->trace),
        .head = bytes,
        .payload = request->body,
        .payload_size = request->total};
    int r;

    if (events->state == EVENTS_CLOSED || (events->state == EVENTS_WAITING && events->broken != 0)) {
        accept_done(events, accept, events->broken != 0 ? events->broken : -ESHUTDOWN);
        return;
    }
    if (events->state == EVENTS_WAITING) {
        list_push_back(&events->waiting, &accept->node);
        return;
    }
    event.head_size = event_head_put(&head, bytes);
    memcpy(event.id, accept->id, 16);
    memcpy(event.queue, accept->uid, 16);
    r = queues_accept(&events->queues, &event, (uint64_t)(uintptr_t)accept);
    if (r == -EINPROGRESS ||
        (r == -ENOBUFS &&
            events->queues.log.open != NULL)) /* when its original, or what is before it, is on the disk */
        list_push_back(&events->waiting, &accept->node);
    else if (r < 0)
        accept_done(events, accept, r);
}

static void take(struct events *events, struct note *note) {
    accept_try(events, list_entry(note, struct accept, note));
}

/* ---- on the loop ------------------------------------------------------------------------------------------------ */

static void refuse(struct exchange *exchange, int error) {
    char message[256];
    switch (error) {
    case -EEXIST:
        exchange_refuse(exchange, 409, "ResourceConflictException", NULL,
            "An event with this id and another payload was accepted a moment ago. Send another id with another event.");
        return;
    case -ENOSPC:
        exchange_refuse(exchange, 503, "ServiceException", NULL,
            "The event was not accepted: the node's disk is full. Events that were accepted before are safe.");
        return;
    case -ESHUTDOWN:
        exchange_refuse(exchange, 503, "ServiceException", NULL,
            "The event was not accepted: the node is shutting down or being upgraded; try again.");
        return;
    default:
        snprintf(message, sizeof(message),
            "The event was not accepted: the node's event log cannot be written (%s). Accepted events are safe.",
            strerror(-error));
        exchange_refuse(exchange, 503, "ServiceException", NULL, message);
    }
}

static void answer(struct dispatch *dispatch, struct mail *mail) {
    struct accept *accept = list_entry(mail, struct accept, note.mail);
    struct exchange *exchange = accept->exchange;
    const struct answer accepted = {.status = 202, .outcome = WIRE_OUTCOME_SUCCESS, .id = accept->id};
    struct answer told = accepted;

    dispatch->events.waiting--;
    if (exchange != NULL) {
        exchange->accept = NULL;
        if (accept->result == 0 || accept->result == -EALREADY)
            exchange_answer(exchange, &told);
        else
            refuse(exchange, accept->result);
    }
    request_free(accept->request);
    free(accept);
}

void events_forget(struct accept *accept) {
    accept->exchange = NULL;
}

/* An event with a name of its caller's has that name's id, so that who sends it twice hears the same id twice. The hash is
 * one that callers cannot steer. */
static void name_event(struct accept *accept, struct wire_slice name) {
    uint8_t digest[SHA256_DIGEST_LENGTH];
    const struct request *request = accept->request;
    SHA256_CTX context;

    SHA256_Init(&context);
    SHA256_Update(&context, accept->uid, sizeof(accept->uid));
    SHA256_Update(&context, name.data, name.size);
    SHA256_Final(digest, &context);
    memcpy(&accept->key, digest, sizeof(accept->key));
    accept->key += accept->key == 0; /* 0 is: none */
    memcpy(accept->id, digest + 8, sizeof(accept->id));
    accept->id[6] = (uint8_t)((accept->id[6] & 0x0f) | 0x80); /* a UUID of version 8, variant 1 */
    accept->id[8] = (uint8_t)((accept->id[8] & 0x3f) | 0x80);
    SHA256_Init(&context);
    SHA256_Update(&context, request->qualifier.data, request->qualifier.size);
    SHA256_Update(&context, "", 1);
    SHA256_Update(&context, request->body, request->total);
    SHA256_Final(digest, &context);
    memcpy(&accept->digest, digest, sizeof(accept->digest));
}

void events_refuse_size(struct exchange *exchange, uint32_t total) {
    char message[160];
    snprintf(message, sizeof(message),
        "Request must be smaller than %u bytes for an asynchronous invocation; it has %u.", EVENT_PAYLOAD_MAX, total);
    count_one(&exchange->dispatch->counters.node->refused_too_large);
    exchange_refuse(exchange, 413, "RequestTooLargeException", NULL, message);
}

void events_accept(struct exchange *exchange, const struct target *target) {
    struct dispatch *dispatch = exchange->dispatch;
    struct request *request = exchange->request;
    struct accept *accept;

    if (dispatch->loops->events == NULL) {
        exchange_refuse(exchange, 501, "NotImplementedException", NULL,
            "InvocationType: this node has no event log. Use RequestResponse.");
        return;
    }
    if (request->total > EVENT_PAYLOAD_MAX) {
        events_refuse_size(exchange, request->total);
        return;
    }
    accept = calloc(1, sizeof(*accept));
    if (accept == NULL) {
        exchange_refuse(exchange, 503, "ServiceException", NULL, "The node is out of memory; try again.");
        return;
    }
    accept->dispatch = dispatch;
    accept->exchange = exchange;
    accept->request = request;
    memcpy(accept->uid, target->function->uid, sizeof(accept->uid));
    if (request->event_id.size > 0)
        name_event(accept, request->event_id);
    else
        random_uuid(&dispatch->randomness, accept->id);
    exchange->request = NULL;
    exchange->accept = accept;
    list_init(&accept->node);
    accept->note.handle = take;
    dispatch->events.waiting++;
    events_bundle(&dispatch->events.accepts, &accept->note.mail);
}
