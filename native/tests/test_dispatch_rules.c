/* Rules of asynchronous invocation: which one holds for an event, against a walk over all of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../dispatch/event_parts.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { OBJECTS = 400, FUNCTIONS = 60, STEPS = 20000 };

static const char *const qualifiers[] = {"", "$LATEST", "1", "live", "live2"};
static uint64_t state = 1;

static unsigned draw(unsigned below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(state >> 33) % below;
}

static void function_uid(uint8_t ret_uid[16], unsigned function) {
    memset(ret_uid, 0, 16);
    ret_uid[3] = (uint8_t)(1 + function);
}

static struct rule *make(uint64_t object) {
    struct rule *rule = calloc(1, sizeof(*rule));
    const char *qualifier = qualifiers[draw(5)];
    CHECK(rule != NULL);
    rule->object = object;
    function_uid(rule->uid, draw(FUNCTIONS));
    rule->qualifier_size = (uint16_t)strlen(qualifier);
    memcpy(rule->qualifier, qualifier, rule->qualifier_size);
    rule->max_age_ms = draw(3) * 1000;
    return rule;
}

static bool is(const struct rule *rule, const uint8_t uid[16], const char *qualifier) {
    return memcmp(rule->uid, uid, 16) == 0 && rule->qualifier_size == strlen(qualifier) &&
        memcmp(rule->qualifier, qualifier, rule->qualifier_size) == 0;
}

/* Of several of one function and qualifier any may hold. */
static void check(const struct rules *rules, const uint8_t uid[16], const char *qualifier) {
    const struct wire_slice slice = {(const uint8_t *)qualifier, (uint32_t)strlen(qualifier)};
    const struct rule *found = rules_find(rules, uid, slice), *rule;
    const char *exact = slice.size == 0 ? "$LATEST" : qualifier;
    unsigned named = 0, of_function = 0, still = 0;
    size_t at = 0;
    while ((rule = table_next(&rules->by_object, &at)) != NULL) {
        named += is(rule, uid, exact);
        of_function += is(rule, uid, "") && rule->max_age_ms != 0;
        still += is(rule, uid, "") && rule->max_age_ms == 0;
    }
    if (named > 0)
        CHECK(is(found, uid, exact));
    else if (of_function > 0 && still == 0)
        CHECK(is(found, uid, "") && found->max_age_ms != 0);
    else if (of_function == 0)
        CHECK(found == &rules->node);
}

int main(void) {
    struct rules rules;
    rules_init(&rules);
    for (unsigned step = 0; step < STEPS; step++) {
        uint8_t uid[16];
        uint64_t object = 1 + draw(OBJECTS);
        if (draw(3) == 0) {
            struct rule *rule = rules_take(&rules, object);
            CHECK(rule == NULL || rule->object == object);
            free(rule);
        } else {
            CHECK(rules_put(&rules, make(object)) == 0);
        }
        function_uid(uid, draw(FUNCTIONS + 2));
        if (step % 4 == 0)
            check(&rules, uid, qualifiers[draw(5)]);
    }
    for (uint64_t object = 1; object <= OBJECTS; object++)
        free(rules_take(&rules, object));
    CHECK(rules.by_object.size == 0 && rules.by_name.size == 0);
    rules_done(&rules);
    return 0;
}
