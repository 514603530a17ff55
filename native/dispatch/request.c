/* Requests; see the header. */
#include "dispatch/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* Up to `most`, no less than `least`. */
static bool draw(struct budget *budget, uint64_t least, uint64_t most) {
    uint64_t left;

    if (budget->common == NULL)
        return false;
    left = atomic_load_explicit(&budget->common->left, memory_order_relaxed);
    while (left >= least) {
        uint64_t drawn = MIN(left, most);
        if (atomic_compare_exchange_weak_explicit(
                &budget->common->left, &left, left - drawn, memory_order_relaxed, memory_order_relaxed)) {
            budget->limit += drawn;
            return true;
        }
    }
    return false;
}

bool budget_take(struct budget *budget, uint64_t size) {
    uint64_t used = budget->used + size;
    if (used > budget->limit && !draw(budget, used - budget->limit, used - budget->limit + BUDGET_CHUNK))
        return false;
    budget->used = used;
    return true;
}

void budget_take_over(struct budget *budget, uint64_t size) {
    if (!budget_take(budget, size))
        budget->used += size;
}

void budget_give_back(struct budget *budget, uint64_t size) {
    uint64_t spare;

    budget->used -= size;
    if (budget->common == NULL || budget->limit < budget->used + 2 * BUDGET_CHUNK)
        return;
    spare = budget->limit - budget->used - BUDGET_CHUNK;
    budget->limit -= spare;
    atomic_fetch_add_explicit(&budget->common->left, spare, memory_order_relaxed);
}

bool budget_has(struct budget *budget, uint64_t size) {
    if (!budget_take(budget, size))
        return false;
    budget_give_back(budget, size);
    return true;
}

static uint64_t left_of(const struct budget *budget) {
    return atomic_load_explicit(&budget->common->left, memory_order_relaxed) + budget->limit - budget->used;
}

bool budget_is_pressed(const struct budget *budget) {
    return budget->common != NULL &&
        left_of(budget) < budget->common->limit / BUDGET_PRESSED_PARTS * (BUDGET_PRESSED_PARTS - 1);
}

static uint64_t held(const struct budget_common *common, uint16_t share) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < LOOPS_MAX; i++)
        sum += atomic_load_explicit(&common->shares[i][share], memory_order_relaxed);
    return sum;
}

static void hold(struct budget *budget, uint16_t share, uint64_t size) {
    _Atomic uint64_t *own = &budget->common->shares[budget->loop][share];
    atomic_store_explicit(own, atomic_load_explicit(own, memory_order_relaxed) + size, memory_order_relaxed);
}

bool budget_take_share(struct budget *budget, uint16_t share, uint64_t size) {
    const struct budget_common *common = budget->common;
    uint64_t left;

    if (common == NULL)
        return budget_take(budget, size);
    left = left_of(budget);
    /* No function holds more than what is in use. */
    if (size > left || (left - size < common->limit / 2 && held(common, share) > left - size) ||
        !budget_take(budget, size))
        return false;
    hold(budget, share, size);
    return true;
}

void budget_give_back_share(struct budget *budget, uint16_t share, uint64_t size) {
    if (budget->common != NULL)
        hold(budget, share, -size);
    budget_give_back(budget, size);
}

static struct wire_slice keep(uint8_t **at, struct wire_slice slice) {
    struct wire_slice kept = {.data = *at, .size = slice.size};
    if (slice.size > 0)
        memcpy(*at, slice.data, slice.size);
    *at += slice.size;
    return kept;
}

int request_new(struct request **ret_request, struct budget *budget, const struct call *call) {
    size_t charge = sizeof(struct request) + call->name.size + call->qualifier.size + call->trace.size +
        call->client_context.size + call->tenant.size + call->event_id.size + call->total;
    struct request *request;
    uint8_t *at;

    if (call->total > REQUEST_BODY_MAX || call->body.size > call->total)
        return -EMSGSIZE;
    if (!budget_take_share(budget, call->share, charge))
        return -ENOMEM;
    request = malloc(charge);
    if (request == NULL) {
        budget_give_back_share(budget, call->share, charge);
        return -ENOMEM;
    }
    *request = (struct request){.budget = budget,
        .charge = charge,
        .share = call->share,
        .open_ended = call->open_ended,
        .flags = call->flags,
        .total = call->total};
    at = request->data;
    request->name = keep(&at, call->name);
    request->qualifier = keep(&at, call->qualifier);
    request->trace = keep(&at, call->trace);
    request->client_context = keep(&at, call->client_context);
    request->tenant = keep(&at, call->tenant);
    request->event_id = keep(&at, call->event_id);
    request->body = at;
    if (call->body.size > 0)
        memcpy(at, call->body.data, call->body.size);
    request->received = call->body.size;
    *ret_request = request;
    return 0;
}

/* Doubles the room until `size` more fit. */
static int grow(struct request *request, uint32_t size) {
    uint64_t wanted = MAX((uint64_t)request->total * 2, (uint64_t)request->received + size);
    uint8_t *body;

    if (size > REQUEST_BODY_MAX - request->received)
        return -EMSGSIZE;
    wanted = MIN(wanted, REQUEST_BODY_MAX);
    if (!budget_take_share(request->budget, request->share, wanted))
        return -ENOMEM;
    body = malloc(wanted);
    if (body == NULL) {
        budget_give_back_share(request->budget, request->share, wanted);
        return -ENOMEM;
    }
    if (request->received > 0)
        memcpy(body, request->body, request->received);
    if (request->body_apart) {
        free(request->body);
        budget_give_back_share(request->budget, request->share, request->total);
        request->charge -= request->total;
    }
    request->charge += wanted;
    request->body = body;
    request->body_apart = true;
    request->total = (uint32_t)wanted;
    return 0;
}

int request_append(struct request *request, struct wire_slice data) {
    if (data.size == 0)
        return -EBADMSG;
    if (data.size > request->total - request->received) {
        int r = request->open_ended ? grow(request, data.size) : -EBADMSG;
        if (r < 0)
            return r;
    }
    memcpy(request->body + request->received, data.data, data.size);
    request->received += data.size;
    return 0;
}

void request_close(struct request *request) {
    request->open_ended = false;
    /* The room beyond it stays charged: it is there. */
    request->total = request->received;
}

void request_free(struct request *request) {
    if (request == NULL)
        return;
    if (request->body_apart)
        free(request->body);
    budget_give_back_share(request->budget, request->share, request->charge);
    free(request);
}
