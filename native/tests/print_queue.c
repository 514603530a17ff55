/* What the pure parts of the queues decide, printed for a comparison with twins in tests/native. Not a test itself.
 *
 * Standard input: lines of a letter and numbers. Standard output: one line of numbers for each.
 *   b retries base age success failure refused attempts accepted now         policy_before
 *   a retries base age success failure refused outcome attempts accepted now gates random   policy_after
 *                              both: verdict, condition, attempts, due
 *   i now                      a new wheel: 0
 *   + due kind number          wheel_add: 0
 *   > now                      wheel_advance, then all that is due: their numbers, in no order
 *   n                          wheel_next
 *   r now kinds latest         wheel_reset_clock: 0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "queue/policy.h"
#include "queue/wheel.h"

static uint64_t number(char **at) {
    return strtoull(*at, at, 10);
}

static struct policy policy_of(char **at) {
    struct policy p = {0};
    p.retries = (uint32_t)number(at);
    p.base_delay_ms = number(at);
    p.max_age_ms = number(at);
    p.deliver_success = number(at) != 0;
    p.deliver_failure = number(at) != 0;
    p.refused = number(at) != 0;
    return p;
}

static void print_decision(struct decision d) {
    printf("%d %d %u %" PRIu64 "\n", d.verdict, d.condition, d.attempts, d.due_ms);
}

static void before(char *at) {
    struct policy p = policy_of(&at);
    uint8_t attempts = (uint8_t)number(&at);
    uint64_t accepted = number(&at), now = number(&at);
    print_decision(policy_before(&p, attempts, accepted, now));
}

static void after(char *at) {
    struct policy p = policy_of(&at);
    enum outcome outcome = (enum outcome)number(&at);
    uint8_t attempts = (uint8_t)number(&at);
    uint64_t accepted = number(&at), now = number(&at);
    uint32_t gates = (uint32_t)number(&at), random = (uint32_t)number(&at);
    print_decision(policy_after(&p, outcome, attempts, accepted, now, gates, random));
}

static void wheel_line(struct wheel *wheel, char what, char *at) {
    struct timed item = {0};
    uint64_t first = number(&at), second = number(&at), third = number(&at);

    if (what == 'i') {
        wheel_done(wheel);
        wheel_init(wheel, first);
    } else if (what == '+') {
        item = (struct timed){.due_ms = first, .kind = (uint16_t)second, .where = (uint32_t)third};
        if (wheel_add(wheel, &item) < 0)
            abort();
    } else if (what == '>') {
        wheel_advance(wheel, first);
        while (wheel_take(wheel, &item))
            printf("%" PRIu32 " ", item.where);
        printf("\n");
        return;
    } else if (what == 'n') {
        printf("%" PRIu64 "\n", wheel_next(wheel));
        return;
    } else {
        wheel_reset_clock(wheel, first, (uint32_t)second, third);
    }
    printf("0\n");
}

int main(void) {
    static struct wheel wheel;
    char line[512];
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (line[0] == 'b')
            before(line + 1);
        else if (line[0] == 'a')
            after(line + 1);
        else
            wheel_line(&wheel, line[0], line + 1);
        fflush(stdout);
    }
    wheel_done(&wheel);
    return 0;
}
