/* How many spares are wanted, printed for a comparison with a twin in tests/native. Not a test itself.
 *
 * Standard input: lines of a letter and numbers. Standard output: one number for each.
 *   n              a new runtime: 0
 *   f now          spare_demand_wake: 0
 *   s now          spare_demand_start: 0
 *   w now most     spare_demand_wanted */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "spare_demand.h"

int main(void) {
    struct spare_demand demand = {0};
    char line[256];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        char *at = line + 1;
        const uint64_t now = strtoull(at, &at, 10), most = strtoull(at, &at, 10);
        unsigned wanted = 0;

        if (line[0] == 'n')
            demand = (struct spare_demand){0};
        else if (line[0] == 'f')
            spare_demand_wake(&demand, now);
        else if (line[0] == 's')
            spare_demand_start(&demand, now);
        else
            wanted = spare_demand_wanted(&demand, now, (unsigned)most);
        printf("%u\n", wanted);
        (void)fflush(stdout);
    }
    return EXIT_SUCCESS;
}
