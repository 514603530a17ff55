/* What is granted and given out: launches of a plan, ids of a zygote. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launcher.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define SECOND UINT64_C(1000000)

static struct plan plan_of(uint32_t max, uint32_t rate) {
    /* Full at time 0, as a plan is put. */
    struct plan plan = {.max = max, .rate = rate, .tokens = (uint64_t)rate * 1000000};
    list_init(&plan.cells);
    return plan;
}

static void test_as_many_as_granted(void) {
    struct plan plan = plan_of(2, 1000);
    CHECK(plan_redeem(&plan, 1, 0) == 0);
    CHECK(plan_redeem(&plan, 1, 0) == 0);
    CHECK(plan_redeem(&plan, 1, 0) == -EDQUOT);
    plan_release(&plan);
    CHECK(plan_redeem(&plan, 1, 0) == 0);
    struct plan none = plan_of(0, 1000);
    CHECK(plan_redeem(&none, 1, 0) == -EDQUOT);
    CHECK(plan_redeem(&none, 2, 0) == -EDQUOT);
}

static void test_granted_to_each_dispatcher(void) {
    struct plan plan = plan_of(2, 1000);
    for (unsigned i = 0; i < 4; i++)
        CHECK(plan_redeem(&plan, 2, 0) == 0);
    CHECK(plan_redeem(&plan, 2, 0) == -EDQUOT);
    plan_release(&plan);
    plan_release(&plan);
    CHECK(plan_redeem(&plan, 1, 0) == -EDQUOT); /* the old one has left: what there is too many goes first */
    plan_release(&plan);
    CHECK(plan_redeem(&plan, 1, 0) == 0);
}

static void test_not_faster_than_granted(void) {
    struct plan plan = plan_of(1000, 10);
    for (unsigned i = 0; i < 10; i++)
        CHECK(plan_redeem(&plan, 1, 0) == 0);
    CHECK(plan_redeem(&plan, 1, 0) == -EAGAIN);
    CHECK(plan_redeem(&plan, 1, SECOND / 10 - 1) == -EAGAIN);
    CHECK(plan_redeem(&plan, 1, SECOND / 10) == 0);
    CHECK(plan_redeem(&plan, 1, SECOND / 10) == -EAGAIN);
    /* An hour's pause is worth one second. */
    for (unsigned i = 0; i < 10; i++)
        CHECK(plan_redeem(&plan, 1, 3600 * SECOND) == 0);
    CHECK(plan_redeem(&plan, 1, 3600 * SECOND) == -EAGAIN);
    CHECK(plan_redeem(&plan, 1, 0) == -EAGAIN); /* a clock that goes back gives nothing */
}

static void test_a_retired_plan_lives_as_long_as_its_environments(void) {
    struct plan *plan = calloc(1, sizeof(*plan));
    CHECK(plan != NULL);
    *plan = plan_of(2, 10);
    CHECK(plan_redeem(plan, 1, 0) == 0 && plan_redeem(plan, 1, 0) == 0);
    plan->retired = true;
    plan_release(plan);
    CHECK(plan->environments == 1);
    plan_release(plan); /* frees it: the sanitizer build would tell */
}

/* No id twice while it is taken, none of those that mean something, and all others had their turn before one returns. */
static void test_ids(void) {
    static struct zygote zygote;
    static bool taken[JAIL_IDS];
    unsigned n = 0;
    uint32_t uid;

    zygote.next_uid = 1;
    uint32_t first = zygote_take_uid(&zygote);
    CHECK(first != 0);
    zygote_give_uid(&zygote, first);
    while ((uid = zygote_take_uid(&zygote)) != 0) {
        CHECK(uid < JAIL_IDS && uid != 65534 && !taken[uid]);
        CHECK(uid != first || n == JAIL_IDS - 3); /* the last of all */
        taken[uid] = true;
        n++;
    }
    CHECK(n == JAIL_IDS - 2);
    zygote_give_uid(&zygote, 4711);
    CHECK(zygote_take_uid(&zygote) == 4711);
    CHECK(zygote_take_uid(&zygote) == 0);
}

int main(void) {
    test_as_many_as_granted();
    test_granted_to_each_dispatcher();
    test_not_faster_than_granted();
    test_a_retired_plan_lives_as_long_as_its_environments();
    test_ids();
    return 0;
}
