/* Admission and the start rule; see the header. */
#include "dispatch/admission.h"

#include "base/cleanup.h"

static uint32_t less(uint32_t a, uint32_t b) {
    return a > b ? a - b : 0;
}

int account_init(struct account *account, unsigned loops, uint32_t limit) {
    account->limit = limit;
    account->reserved = account->provisioned = 0;
    return pool_init(&account->unreserved, loops, limit);
}

void account_done(struct account *account) {
    pool_done(&account->unreserved);
}

void account_limit(struct account *account, uint32_t limit) {
    account->limit = limit;
    pool_resize(&account->unreserved, less(less(limit, account->reserved), account->provisioned));
}

int concurrency_init(struct concurrency *function, unsigned loops) {
    function->reserved = RESERVED_UNSET;
    function->provisioned = 0;
    return pool_init(&function->pool, loops, POOL_ENDLESS);
}

void concurrency_done(struct concurrency *function) {
    pool_done(&function->pool);
}

int version_pools_init(struct version_pools *version, unsigned loops) {
    int r = pool_init(&version->load, loops, 0);
    if (r < 0)
        return r;
    r = pool_init(&version->provision, loops, 0);
    if (r < 0)
        pool_done(&version->load);
    return r;
}

void version_pools_done(struct version_pools *version) {
    pool_done(&version->load);
    pool_done(&version->provision);
}

enum admission admission_take(struct account *account, struct concurrency *function, struct version_pools *version,
    unsigned loop, uint32_t *ret_tokens) {
    uint32_t tokens = TOKEN_FUNCTION;
    enum admission refusal;

    if (!pool_take(&function->pool, loop))
        return ADMISSION_FUNCTION;
    if (version->provision.capacity > 0 && pool_take(&version->provision, loop)) {
        tokens |= TOKEN_PROVISION;
    } else if (function->reserved == RESERVED_UNSET) {
        refusal = ADMISSION_ACCOUNT;
        if (!pool_take(&account->unreserved, loop))
            goto refuse;
        tokens |= TOKEN_ACCOUNT;
    }
    refusal = ADMISSION_TARGET;
    if (!pool_take(&version->load, loop))
        goto refuse;
    *ret_tokens = tokens;
    return ADMISSION_GRANTED;
refuse:
    if (tokens & TOKEN_ACCOUNT)
        pool_give(&account->unreserved, loop);
    if (tokens & TOKEN_PROVISION)
        pool_give(&version->provision, loop);
    pool_give(&function->pool, loop);
    return refusal;
}

void admission_give_back(struct account *account, struct concurrency *function, struct version_pools *version,
    unsigned loop, uint32_t tokens) {
    if (tokens == 0)
        return;
    pool_give(&version->load, loop);
    if (tokens & TOKEN_PROVISION)
        pool_give(&version->provision, loop);
    if (tokens & TOKEN_ACCOUNT)
        pool_give(&account->unreserved, loop);
    pool_give(&function->pool, loop);
}

void admission_reserve(struct account *account, struct concurrency *function, uint32_t reserved) {
    if (function->reserved == reserved)
        return;
    if (function->reserved != RESERVED_UNSET)
        account->reserved -= function->reserved;
    else
        account->provisioned -= function->provisioned;
    function->reserved = reserved;
    if (reserved != RESERVED_UNSET)
        account->reserved += reserved;
    else
        account->provisioned += function->provisioned;
    pool_resize(&function->pool, reserved != RESERVED_UNSET ? (int64_t)reserved : POOL_ENDLESS);
    account_limit(account, account->limit);
}

void admission_provision(
    struct account *account, struct concurrency *function, struct version_pools *version, uint32_t provisioned) {
    const uint32_t before = (uint32_t)version->provision.capacity;

    if (before == provisioned)
        return;
    function->provisioned += provisioned - before;
    if (function->reserved == RESERVED_UNSET)
        account->provisioned += provisioned - before;
    pool_resize(&version->provision, provisioned);
    account_limit(account, account->limit);
}

bool burst_serves(const struct burst_view *view) {
    const uint64_t turns = view->p50_us != 0 ? view->limit_us / view->p50_us : 0; /* of one environment in that time */
    uint64_t served = 0, more = 0;

    if (view->first_us == 0 || (view->established > 0 && view->p50_us == 0))
        return true;
    if (view->first_us <= view->limit_us && view->each_us > 0)
        more = 1 + (view->limit_us - view->first_us) / view->each_us;
    served = view->starting > 0 && turns == 0 ? view->starting : view->starting * turns;
    served += view->established * MAX(turns, 1u);
    served += MIN(more, view->left);
    return view->waiting <= served;
}

uint32_t start_count(const struct start_view *view) {
    uint32_t demand = view->established == 0 ? view->waiting : view->ripe;
    uint32_t wanted = less(demand, view->starting), room = less(view->max_environments, view->live);
    return wanted < room ? wanted : room;
}

uint64_t start_patience_us(uint64_t p50_us) {
    return p50_us != 0 && p50_us < START_PATIENCE_US ? p50_us : START_PATIENCE_US;
}
