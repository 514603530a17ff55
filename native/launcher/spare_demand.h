/* How many spares a runtime should have: pure, integers and time only, so that a twin in the tests can follow it.
 *
 * One while functions of the runtime exist and one was started within the last hour; one more for each start of the last
 * seconds, whose number is halved every ten seconds; never more than the settings allow, none while memory is short. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SPARE_HALF_US UINT64_C(10000000)
#define SPARE_SLEEP_US UINT64_C(3600000000)
/* Starts beyond this are not counted: no setting allows that many. */
#define SPARE_RECENT_MAX 1024u

/* Zeroed: never asked for. */
struct spare_demand {
    bool awake;
    uint64_t last_us; /* of the last start, or of a function's coming; when awake */
    uint64_t since_us;
    uint32_t recent; /* starts, in 1/256, as of since_us */
};

/* A function of the runtime is there. */
void spare_demand_wake(struct spare_demand *demand, uint64_t now_us);
/* An environment is started. Time does not go backwards. */
void spare_demand_start(struct spare_demand *demand, uint64_t now_us);
unsigned spare_demand_wanted(const struct spare_demand *demand, uint64_t now_us, unsigned most);
