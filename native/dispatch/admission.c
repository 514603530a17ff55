/* Admission and the start rule; see the header. */
#include "dispatch/admission.h"

static uint32_t less(uint32_t a, uint32_t b) {
    return a > b ? a - b : 0;
}

int account_init(struct account *account, unsigned loops, uint32_t limit) {
    account->limit = limit;
    account->reserved = 0;
    return pool_init(&account->unreserved, loops, limit);
}

void account_done(struct account *account) {
    pool_done(&account->unreserved);
}

void account_limit(struct account *account, uint32_t limit) {
    account->limit = limit;
    pool_resize(&account->unreserved, less(limit, account->reserved));
}

int concurrency_init(struct concurrency *function, unsigned loops) {
    function->reserved = RESERVED_UNSET;
    return pool_init(&function->pool, loops, POOL_ENDLESS);
}

void concurrency_done(struct concurrency *function) {
    pool_done(&function->pool);
}

enum admission admission_take(
    struct account *account, struct concurrency *function, struct pool *load, unsigned loop, uint32_t *ret_tokens) {
    uint32_t tokens = TOKEN_FUNCTION;
    enum admission refusal;

    if (!pool_take(&function->pool, loop))
        return ADMISSION_FUNCTION;
    if (function->reserved == RESERVED_UNSET) {
        refusal = ADMISSION_ACCOUNT;
        if (!pool_take(&account->unreserved, loop))
            goto refuse;
        tokens |= TOKEN_ACCOUNT;
    }
    refusal = ADMISSION_TARGET;
    if (!pool_take(load, loop))
        goto refuse;
    *ret_tokens = tokens;
    return ADMISSION_GRANTED;
refuse:
    if (tokens & TOKEN_ACCOUNT)
        pool_give(&account->unreserved, loop);
    pool_give(&function->pool, loop);
    return refusal;
}

void admission_give_back(
    struct account *account, struct concurrency *function, struct pool *load, unsigned loop, uint32_t tokens) {
    if (tokens == 0)
        return;
    pool_give(load, loop);
    if (tokens & TOKEN_ACCOUNT)
        pool_give(&account->unreserved, loop);
    pool_give(&function->pool, loop);
}

void admission_reserve(struct account *account, struct concurrency *function, uint32_t reserved) {
    if (function->reserved == reserved)
        return;
    if (function->reserved != RESERVED_UNSET)
        account->reserved -= function->reserved;
    function->reserved = reserved;
    if (reserved != RESERVED_UNSET)
        account->reserved += reserved;
    pool_resize(&function->pool, reserved != RESERVED_UNSET ? (int64_t)reserved : POOL_ENDLESS);
    account_limit(account, account->limit);
}

uint32_t start_count(const struct start_view *view) {
    uint32_t demand = view->established == 0 ? view->waiting : view->ripe;
    uint32_t wanted = less(demand, view->starting), room = less(view->max_environments, view->live);
    return wanted < room ? wanted : room;
}

uint64_t start_patience_us(uint64_t p50_us) {
    return p50_us != 0 && p50_us < START_PATIENCE_US ? p50_us : START_PATIENCE_US;
}
