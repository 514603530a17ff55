/* How many spares there are, when they are made, and what is told of them; see the header. */
#include <fcntl.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "launcher.h"

/* After a launch the new environment starts and answers: on few cores a spare in the making would take the processor from
 * it. In a row of launches each pauses it anew. */
#define PAUSE_US 5000
/* Before what was not at hand is asked for again. */
#define RETRY_US 20000
/* How often is looked whether fewer are wanted. */
#define TICK_US 1000000
/* Of the machine's memory: below the first all spares end, below the second none is made. */
#define TIGHT_PERCENT 10
#define SCARCE_PERCENT 20

static void refill_fire(void *owner);

void spares_soon(struct server *server, uint64_t after_us) {
    if (server->boot.spares > 0 && server->phase == PHASE_RUNNING)
        loop_timer(&server->loop, &server->spares.refill, after_us, refill_fire, server);
}

void spares_expect(struct plan *plan) {
    struct spare_stock *stock = &plan->runtime->spares;

    if (!spare_may_take(plan))
        return;
    if (stock->shape.storage_mb == 0)
        stock->shape = shape_of(plan);
    spare_demand_wake(&stock->demand, plan->runtime->server->loop.now_us);
    if (!loop_timer_on(&plan->runtime->server->spares.refill))
        spares_soon(plan->runtime->server, RETRY_US);
}

void spares_plan_gone(struct plan *plan) {
    struct spare_stock *stock;

    if (plan->runtime == NULL) /* it is just being made */
        return;
    stock = &plan->runtime->spares;
    if (stock->plan == plan)
        stock->plan = NULL;
    list_for_each_safe(node, &plan->runtime->server->launches.all) {
        struct environment *spare = list_entry(node, struct environment, all);
        if (spare->spare != SPARE_NONE && spare->bound == plan)
            spare_end(spare);
    }
}

void spares_launched(struct plan *plan) {
    struct spare_stock *stock = &plan->runtime->spares;
    struct server *server = plan->runtime->server;

    if (spare_may_take(plan)) {
        stock->plan = plan;
        stock->shape = shape_of(plan);
        spare_demand_start(&stock->demand, server->loop.now_us);
    }
    spares_soon(server, PAUSE_US);
}

/* Percent of the machine's memory that can be had; 100 where the kernel does not say. */
static unsigned available_percent(void) {
    char text[512];
    unsigned long long total = 0, available = 0;

    if (read_file_at(AT_FDCWD, "/proc/meminfo", text, sizeof(text)) <= 0 ||
        sscanf(text, "MemTotal: %llu kB MemFree: %*u kB MemAvailable: %llu kB", &total, &available) != 2 || total == 0)
        return 100;
    return (unsigned)(available * 100 / total);
}

enum step { STEP_NOTHING, STEP_LATER, STEP_MADE };

static enum step look(struct runtime *runtime, unsigned percent) {
    struct server *server = runtime->server;
    struct spare_stock *stock = &runtime->spares;
    unsigned wanted = 0;

    if (percent >= TIGHT_PERCENT && stock->shape.storage_mb != 0 && plans_need(server, runtime))
        wanted = spare_demand_wanted(&stock->demand, server->loop.now_us, server->boot.spares);
    if (stock->n > wanted) {
        spare_end(list_entry(stock->ready.next, struct environment, queue));
        return STEP_NOTHING; /* one a tick */
    }
    if (wanted == 0 || percent < SCARCE_PERCENT || server->loop.now_us < stock->not_before_us)
        return STEP_NOTHING;
    if (!launches_disk_has_room(server) || !spare_has_zygote(runtime))
        return STEP_NOTHING;
    if (stock->n == wanted && spare_find(stock, stock->plan, &stock->shape) == NULL)
        spare_end(
            list_entry(stock->ready.next, struct environment, queue)); /* none is of the kind that is asked for now */
    if (stock->n == wanted)
        return STEP_NOTHING;
    return spare_make(runtime) ? STEP_MADE : STEP_LATER;
}

static void tell_changed(struct server *server) {
    for (unsigned i = 0; i < server->zygotes.n; i++) {
        struct runtime *runtime = &server->zygotes.runtimes[i];
        struct spare_stock *stock = &runtime->spares;
        if (stock->told || runtime->name[0] == '\0' || (stock->made == 0 && stock->failed == 0))
            continue;
        unsigned ready = 0;
        list_for_each(node, &stock->ready) ready++;
        struct wire_spares message = {.name = link_text(runtime->name),
            .ready = ready,
            .made = stock->made,
            .taken = stock->taken,
            .failed = stock->failed};
        stock->told = true;
        LINK_SEND(&server->supervision.control.link, HEADER(runtime->index), spares, message, NULL, 0);
    }
}

void spares_tell(struct server *server) {
    for (unsigned i = 0; i < server->zygotes.n; i++)
        server->zygotes.runtimes[i].spares.told = false;
    tell_changed(server);
}

static void refill_fire(void *owner) {
    struct server *server = owner;
    enum step step = STEP_NOTHING;

    tell_changed(server);
    if (server->spares.making != NULL || server->launches.waiting > 0) {
        spares_soon(server, RETRY_US);
        return;
    }
    const unsigned percent = available_percent();
    for (unsigned i = 0; i < server->zygotes.n && step != STEP_MADE; i++) {
        enum step its = look(&server->zygotes.runtimes[i], percent);
        step = its != STEP_NOTHING ? its : step;
    }
    uint64_t after = step == STEP_NOTHING ? TICK_US : RETRY_US;
    for (unsigned i = 0; i < server->zygotes.n; i++) {
        const uint64_t due = server->zygotes.runtimes[i].spares.not_before_us, now = server->loop.now_us;
        if (due > now)
            after = MIN(after, due - now);
    }
    spares_soon(server, after);
}
