/* Snapshots; see the header. Runs in the first loop. */
#include "dispatch/control_snapshot.h"

#include <errno.h>
#include <stdlib.h>

#include "dispatch/dispatch.h"
#include "dispatch/travel.h"

static void count_one_more(struct environment *environment, void *argument) {
    (void)environment;
    ++*(size_t *)argument;
}

static void add_traveller(struct environment *environment, void *argument) {
    struct control *control = argument;
    control->rows[control->n_rows++] = (struct snapshot_row){.id = environment->id,
        .target = environment->destined,
        .state = environment_state_wire(environment->state),
        .invocations = environment->served};
}

static void add_all(struct control *control, struct dispatch *dispatch) {
    list_for_each(node, &dispatch->in_order) {
        const struct environment *environment = list_entry(node, struct environment, in_order);
        control->rows[control->n_rows++] = (struct snapshot_row){.id = environment->id,
            .target = environment->target->id,
            .state = environment_state_wire(environment->state),
            .invocations = environment->served};
    }
    control->rows_in_flight += dispatch->in_flight;
    if (dispatch->loops->n > 1)
        travel_look(dispatch, add_traveller, control);
}

static int compare(const void *a, const void *b) {
    const struct snapshot_row *first = a, *second = b;
    return first->id < second->id ? -1 : first->id > second->id;
}

int control_snapshot_take(struct control *control) {
    struct loops *loops = control->dispatch->loops;
    size_t n = 0;

    loops_stop(loops);
    for (unsigned i = 0; i < loops->n; i++) {
        n += loops->each[i]->environments.size;
        if (loops->n > 1)
            travel_look(loops->each[i], count_one_more, &n);
    }
    control->n_rows = control->rows_sent = 0;
    control->rows_in_flight = 0;
    control->rows = malloc((n + 1) * sizeof(*control->rows));
    for (unsigned i = 0; i < loops->n && control->rows != NULL; i++)
        add_all(control, loops->each[i]);
    loops_go(loops);
    if (control->rows == NULL)
        return -ENOMEM;
    qsort(control->rows, control->n_rows, sizeof(*control->rows), compare);
    return 0;
}

void control_snapshot_done(struct control *control, bool again) {
    free(control->rows);
    control->rows = NULL;
    control->snapshot = again;
}
