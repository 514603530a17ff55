/* Any text as a plan: either it is refused with a reason and leaves nothing, or what it became is valid. */
#include <stdint.h>
#include <stdlib.h>

#include "jail/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char reason[160] = "", again[160];
    struct jail_plan plan;
    int r = jail_plan_parse((const char *)data, size, &plan, reason, sizeof(reason));
    if (r < 0 && (reason[0] == '\0' || plan.command != NULL || plan.environment != NULL || plan.mounts != NULL))
        abort();
    if (r == 0 && jail_plan_validate(&plan, again, sizeof(again)) != 0)
        abort();
    jail_plan_clear(&plan);
    return 0;
}
