/* One dispatcher hands over to another, through a launcher that passes it on, loses it, changes it, or makes it up. Both
 * are the library in this process: the old one lives for one input, the new one goes on. An input is a programme: its first
 * bytes say what the old one has, each further one picks an act. At the end everybody leaves: the old one is over, and
 * neither has a call, a slot, a byte of payload or an environment left. */
#include "handover_stage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ACTS_MAX 48

static void turn_both(struct pair *pair) {
    turn(pair->new);
    if (!pair->over) {
        int r = dispatch_turn(&pair->old->dispatch, 0);
        CHECK(r >= 0);
        pair->over = r > 0;
    }
}

/* ---- the old one before --------------------------------------------------------------------------------------------- */

static void say_result(struct stage *stage, struct actor *actor) {
    struct wire_header header = {.flags = WIRE_HEADER_READY};
    struct wire_result result = {.total = 2, .body = {(const uint8_t *)"{}", 2}};

    memcpy(result.id, actor->id, 16);
    actor->busy = false;
    send_to(actor->channel, stage->packet, wire_result_encode(&header, &result, stage->packet, WIRE_MESSAGE_MAX));
}

static void say(struct stage *stage, struct actor *actor) {
    struct wire_header header = {0};
    struct wire_init_done done = {0};

    hear_dispatcher(stage, actor);
    if (actor->busy) {
        say_result(stage, actor);
    } else if (actor->granted && !actor->initialised) {
        actor->initialised = true;
        send_to(actor->channel, stage->packet, wire_init_done_encode(&header, &done, stage->packet, WIRE_MESSAGE_MAX));
    }
}

static void call(struct stage *stage, int caller) {
    struct wire_header header = {.object = ++stage->calls};
    struct wire_call message = {.name = {(const uint8_t *)"f", 1}, .total = 2, .body = {(const uint8_t *)"{}", 2}};
    send_to(caller, stage->packet, wire_call_encode(&header, &message, stage->packet, WIRE_MESSAGE_MAX));
}

/* As many environments as the low bits say, the rest of which are at work; callers between two requests, and in one. */
static void prepare(struct stage *stage, struct tape *tape) {
    static const char begun[] = "POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: h\r\nContent-Le";
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    uint8_t what = take(tape);
    unsigned n = what % 4, idle = what / 4 % 4;

    for (unsigned i = 0; i < n; i++) {
        call(stage, stage->callers[i % 2]);
        turn(stage);
        hear_launcher(stage);
    }
    for (unsigned i = 0; i < ACTORS; i++)
        grant(stage, &stage->actors[i], 0);
    turn(stage);
    for (unsigned i = 0; i < ACTORS; i++)
        say(stage, &stage->actors[i]);
    turn(stage);
    for (unsigned i = 0; i < idle && i < ACTORS; i++)
        say(stage, &stage->actors[i]);
    if (what & 64)
        send_to(stage->http, begun, take(tape) % (int)sizeof(begun));
    else if (what & 128)
        send_to(stage->http, preface, sizeof(preface) - 1);
    turn(stage);
    hear_answers(stage);
}

/* ---- the page of counters -------------------------------------------------------------------------------------------- */

/* The old one's as it is, or one with noise in its head and in some slots. */
static void inherit(struct pair *pair, struct tape *tape) {
    struct dispatch *dispatch = &pair->new->dispatch;
    uint8_t how = take(tape), bytes[64];
    int fd = -1;

    if (dispatch->inheritance.given)
        return;
    if (how < 64) {
        inherit_from(dispatch, pair->old->dispatch.counters.fd, true);
        inherit_begin(dispatch);
        return;
    }
    fd = memfd_create("page", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0 && ftruncate(fd, how > 240 ? (off_t)how << 12 : (off_t)COUNTERS_SIZE) == 0);
    CHECK(pwrite(fd, pair->old->dispatch.counters.head, sizeof(struct counters_head), 0) > 0);
    for (unsigned i = 0; i < 4 && tape->at < tape->end; i++) {
        uint64_t at = take(tape), place = at < 128 ? at * 2 : COUNTERS_NODE_OFFSET + at * 4096 % (COUNTERS_SIZE / 2);
        memset(bytes, take(tape), sizeof(bytes));
        CHECK(pwrite(fd, bytes, take(tape) % sizeof(bytes), (off_t)place) >= 0);
    }
    if (how < 224)
        CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    inherit_from(dispatch, fd, how & 1);
    inherit_begin(dispatch);
    close(fd);
}

static void disinherit(struct dispatch *dispatch) {
    uint64_t target;
    size_t at = 0;
    struct counters_slot *slot;

    inherit_finish(dispatch);
    while ((slot = table_next(&dispatch->inheritance.slots, &at)) != NULL) {
        target = atomic_load(&slot->target);
        inherit_forget(dispatch, target);
        at = 0;
    }
    inherit_close(dispatch);
    dispatch->inheritance = (struct inheritance){0};
}

/* ---- the whole ------------------------------------------------------------------------------------------------------ */

static void act(struct pair *pair, struct tape *tape) {
    static const char request[] =
        "POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}";
    uint8_t what = take(tape), more;
    struct stage *stage = what & 16 && !pair->over ? pair->old : pair->new;
    struct actor *actor = choose(stage, true, what / 32);

    switch (what % 16) {
    case 0 ... 4:
        more = take(tape);
        pass_on(pair, tape, more);
        break;
    case 5:
        make_environment(pair, tape);
        break;
    case 6:
        make_connection(pair, tape);
        break;
    case 7:
        make_noise(pair, tape);
        break;
    case 8:
    case 9:
        say(stage, actor);
        break;
    case 10:
        call(pair->old, pair->old->callers[what / 32 % 2]);
        break;
    case 11:
        more = take(tape);
        send_to(pair->old->http, request, MIN(more, (int)sizeof(request) - 1));
        if (pair->n_inputs > 0)
            send_to(pair->inputs[what % pair->n_inputs], request, sizeof(request) - 1);
        break;
    case 12:
        if (actor->granted && what > 128)
            exited(stage, actor, take(tape));
        break;
    case 13:
        inherit(pair, tape);
        break;
    case 14:
        more = take(tape);
        grant(stage, choose(stage, false, more), more);
        break;
    default:
        if (what > 200)
            tell(pair->new, what & 64 ? WIRE_HANDED_KIND_ALL : WIRE_HANDED_KIND_LOST, what & 32 ? 1 : 0);
        else if (what > 128)
            for (size_t i = 0; i < ARRAY_SIZE(pair->old->callers); i++)
                cleanup_close(&pair->old->callers[i]);
        else if (pair->n_inputs > 0)
            cleanup_close(&pair->inputs[--pair->n_inputs]);
    }
    turn_both(pair);
    hear_launcher(pair->new);
    hear_answers(pair->old);
}

static void begin(struct pair *pair, struct tape *tape) {
    struct wire_header header = {0};
    uint8_t what = take(tape);
    struct wire_hand_over message = {.version = what > 240 ? 0 : what > 230 ? 2 : 1};

    takeover_expect(pair->new->dispatch.loops);
    takeover_serve(&pair->new->dispatch);
    send_to(pair->old->launcher, pair->old->packet,
        wire_hand_over_encode(&header, &message, pair->old->packet, WIRE_MESSAGE_MAX));
    turn_both(pair);
}

/* Everybody leaves; the old one may be over before, with environments that are being ended. */
static void leave(struct stage *stage, struct pair *pair) {
    struct counters_node *node = stage->dispatch.counters.node;

    for (unsigned round = 0; node->environments > 0 || node->calls_open > 0 || node->connections > 0; round++) {
        if (stage == pair->old && pair->over)
            break;
        CHECK(round < 100);
        for (size_t i = 0; i < ACTORS; i++)
            if (stage->actors[i].granted) {
                exited(stage, &stage->actors[i], 9);
            } else if (stage->actors[i].environment != 0) {
                refuse(stage, stage->actors[i].environment, false);
                stage->actors[i].environment = 0;
            }
        turn_both(pair);
        hear_launcher(stage);
    }
    CHECK(node->invocations_in_flight == 0 && node->waiting == 0 && node->environments_idle == 0);
    CHECK(node->logic_errors == 0 && stage->dispatch.in_use == 0 && stage->dispatch.budget.used == 0);
    CHECK(stage->dispatch.in_flight == 0 && node->calls_open == 0 && node->connections == 0);
    CHECK(stage->dispatch.launcher.launching == 0 || stage == pair->old);
    CHECK(
        node->calls == node->answers_success + node->answers_function_error + node->answers_refused + node->abandoned);
}

static void settle(struct pair *pair) {
    struct passed passed;

    for (size_t i = 0; i < ARRAY_SIZE(pair->old->callers); i++)
        cleanup_close(&pair->old->callers[i]);
    cleanup_close(&pair->old->http);
    while (pair->n_inputs > 0)
        cleanup_close(&pair->inputs[--pair->n_inputs]);
    /* The launcher does not read any more; what is under way to the new one goes. */
    leave(pair->old, pair);
    for (unsigned round = 0; !pair->over; round++) {
        CHECK(round < 10000);
        turn_both(pair);
        while (hear_old(pair, &passed))
            drop(&passed);
    }
    tell(pair->new, WIRE_HANDED_KIND_ALL, 0);
    turn_both(pair);
    hear_launcher(pair->new);
    for (size_t i = 0; i < ACTORS; i++) { /* none is left to itself */
        uint64_t id = pair->new->actors[i].environment;
        CHECK(id == 0 || table_get(&pair->new->dispatch.environments, id) != NULL);
    }
    leave(pair->new, pair);
    CHECK(pair->new->dispatch.handover.expecting_us == 0);
}

static void old_close(struct stage *stage) {
    close(stage->launcher);
    close(stage->control);
    for (size_t i = 0; i < ACTORS; i++) {
        cleanup_close(&stage->actors[i].channel);
        cleanup_close(&stage->actors[i].log);
    }
    dispatch_close(&stage->dispatch);
    free(stage);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct stage *new;
    struct tape tape = {data, data + size};
    struct pair pair = {.inputs = {-1, -1, -1, -1}};

    if (new == NULL)
        new = stage_open();
    pair.new = new;
    pair.old = stage_open();
    atomic_store(&pair.old->dispatch.loops->launcher_epoch,
        1); /* as two at a time have it, so that no id is one's and the other's */
    for (size_t i = 0; i < ARRAY_SIZE(pair.old->callers); i++)
        pair.old->callers[i] = connect_caller(pair.old, false);
    pair.old->http = connect_caller(pair.old, true);
    for (size_t i = 0; i < ACTORS; i++)
        pair.old->actors[i] = pair.new->actors[i] = ABSENT;
    prepare(pair.old, &tape);
    begin(&pair, &tape);
    for (unsigned i = 0; i < ACTS_MAX && tape.at < tape.end; i++)
        act(&pair, &tape);
    settle(&pair);
    disinherit(&pair.new->dispatch);
    old_close(pair.old);
    /* What it reports must not fill the socket. */
    while (recv(new->control, new->packet, WIRE_MESSAGE_MAX, MSG_DONTWAIT) > 0)
        ;
    return 0;
}
