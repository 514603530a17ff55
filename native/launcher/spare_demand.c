/* How many spares; see the header. */
#include "spare_demand.h"

#define ONE 256u

static uint32_t halved(uint32_t recent, uint64_t times) {
    return times >= 32 ? 0 : recent >> times;
}

void spare_demand_wake(struct spare_demand *demand, uint64_t now_us) {
    if (!demand->awake)
        demand->since_us = now_us;
    demand->awake = true;
    demand->last_us = now_us;
}

void spare_demand_start(struct spare_demand *demand, uint64_t now_us) {
    spare_demand_wake(demand, now_us);
    const uint64_t times = (now_us - demand->since_us) / SPARE_HALF_US;
    demand->recent = halved(demand->recent, times) + ONE;
    if (demand->recent > SPARE_RECENT_MAX * ONE)
        demand->recent = SPARE_RECENT_MAX * ONE;
    demand->since_us += times * SPARE_HALF_US;
}

unsigned spare_demand_wanted(const struct spare_demand *demand, uint64_t now_us, unsigned most) {
    if (!demand->awake || now_us - demand->last_us >= SPARE_SLEEP_US)
        return 0;
    const unsigned wanted = 1 + halved(demand->recent, (now_us - demand->since_us) / SPARE_HALF_US) / ONE;
    return wanted < most ? wanted : most;
}
