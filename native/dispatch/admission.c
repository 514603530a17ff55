/* Admission and the start rule; see the header. */
#include "dispatch/admission.h"

static uint32_t less(uint32_t a, uint32_t b) {
    return a > b ? a - b : 0;
}

enum admission admission_take(
    struct account *account, struct concurrency *function, const struct load *load, uint32_t *ret_tokens) {
    uint32_t tokens = TOKEN_FUNCTION;

    if (function->reserved != RESERVED_UNSET) {
        if (function->in_use >= function->reserved)
            return ADMISSION_FUNCTION;
    } else {
        if (account->unreserved_in_use >= less(account->limit, account->reserved))
            return ADMISSION_ACCOUNT;
        tokens |= TOKEN_ACCOUNT;
    }
    if ((uint64_t)load->in_flight >= (uint64_t)load->max_environments + load->max_waiting)
        return ADMISSION_TARGET;
    account->in_use++;
    function->in_use++;
    if (tokens & TOKEN_ACCOUNT)
        account->unreserved_in_use++;
    *ret_tokens = tokens;
    return ADMISSION_GRANTED;
}

void admission_give_back(struct account *account, struct concurrency *function, uint32_t tokens) {
    if (tokens == 0)
        return;
    account->in_use--;
    function->in_use--;
    if (tokens & TOKEN_ACCOUNT)
        account->unreserved_in_use--;
}

void admission_reserve(struct account *account, struct concurrency *function, uint32_t reserved) {
    if (function->reserved != RESERVED_UNSET)
        account->reserved -= function->reserved;
    function->reserved = reserved;
    if (reserved != RESERVED_UNSET)
        account->reserved += reserved;
}

uint32_t start_count(const struct start_view *view) {
    uint32_t demand = view->established == 0 ? view->waiting : view->ripe;
    uint32_t wanted = less(demand, view->starting), room = less(view->max_environments, view->live);
    return wanted < room ? wanted : room;
}

uint64_t start_patience_us(uint64_t p50_us) {
    return p50_us != 0 && p50_us < START_PATIENCE_US ? p50_us : START_PATIENCE_US;
}
