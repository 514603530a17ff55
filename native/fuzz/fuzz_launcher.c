/* The launcher as its peers find it: control plane, two dispatchers, zygotes, shellmakers, side processes and the pipes
 * of snapshots, each of which says what it should, what it should not, and bytes of the input; processes end and time
 * passes at any moment. An input is a programme: each byte picks an act. What END and HANDED of one dispatcher say changes
 * nothing of another's environments. At the end the launcher stops, and every process, descriptor, id and grant has been
 * given back. */
#include <dirent.h>

#include "launcher_stage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ACTS_MAX 160
#define SAY(process, type, header_, ...)                                                                               \
    do {                                                                                                               \
        struct wire_##type _message = {__VA_ARGS__};                                                                   \
        struct wire_header _header = (header_);                                                                        \
        say_packet(                                                                                                    \
            process, buffer, wire_##type##_encode(&_header, &_message, buffer, sizeof(buffer)), tape, fds, n_fds);     \
    } while (0)

static void send_packet(const struct process *process, const uint8_t *data, int size, const int *fds, unsigned n_fds) {
    if (process != NULL && process->peer >= 0 && size > 0)
        (void)packet_send(process->peer, data, (size_t)size, fds, n_fds);
}

/* One in eight is spoilt. */
static void say_packet(
    const struct process *process, uint8_t *data, int size, struct tape *tape, const int *fds, unsigned n_fds) {
    uint8_t how = take(tape);
    if (how > 223 && size > 0)
        data[(how * 37u + take(tape)) % (unsigned)size] ^= (uint8_t)(1u << (how & 7));
    send_packet(process, data, size, fds, n_fds);
}

/* ---- the control plane ---------------------------------------------------------------------------------------------- */

static void say_plan(struct process *control, struct tape *tape, uint64_t seq) {
    static const char digits[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", layer[32] = "l";
    uint8_t buffer[4096], how = take(tape), more = take(tape);
    const int *fds = NULL;
    unsigned n_fds = 0;
    struct wire_header header = {.object = how & 3, .seq = (uint32_t)seq, .generation = more & 3};

    SAY(control, put_plan, header, .max = more & 7, .rate = 1000,
        .runtime = link_text(how & 16 ? "python3.12" : "python3.11"),
        .package = {(const uint8_t *)digits, more > 250 ? more & 15 : 64},
        .layers = {(const uint8_t *)layer, how & 8 ? 32 : 0}, .memory_mb = 128, .storage_mb = 512 + (how & 128) * 4,
        .pids = 64, .descriptors = 256, .cpu = how >> 5 & 1,
        .snapshot = how >> 6 & 1 ? WIRE_SNAPSHOT_MODE_AUTOMATIC : 0);
}

static void act_control(struct stage *stage, struct tape *tape, uint8_t what) {
    struct process *control = seam_choose(PROCESS_CONTROL, 0);
    uint8_t buffer[4096], how = take(tape);
    const int *fds = NULL;
    unsigned n_fds = 0;
    static uint64_t seq;
    const struct wire_header header = {.object = how & 3, .seq = (uint32_t)++seq, .generation = how >> 4};

    (void)stage;
    switch (what % 10) {
    case 0:
        SAY(control, hello, header, .role = WIRE_ROLE_CONTROL, .build = link_text(how > 200 ? "b2" : "b1"));
        break;
    case 1:
        SAY(control, sync_begin, header, 0);
        break;
    case 2:
        SAY(control, put_runtime, header, .name = link_text(how & 1 ? "python3.12" : "python3.11"));
        break;
    case 3:
    case 4:
    case 5:
        say_plan(control, tape, seq);
        break;
    case 6:
        SAY(control, sync_end, header, 0);
        break;
    case 7:
        SAY(control, del_plan, header, 0);
        break;
    case 8:
        SAY(control, task, header, .kind = WIRE_TASK_KIND_PROBE + (how & 1), .interpreter = how >> 6,
            .staging = link_text("1f-2"), .memory_mb = 64, .timeout_ms = 1000);
        break;
    default:
        if (how & 1)
            SAY(control, serving, header, 0);
        else
            SAY(control, beat, header, 0);
    }
}

/* ---- dispatchers ---------------------------------------------------------------------------------------------------- */

/* HANDED of an environment with its own descriptors, those of another, or none. */
static void say_handed(struct stage *stage, struct process *dispatcher, struct tape *tape) {
    uint8_t buffer[4096], how = take(tape), more = take(tape);
    unsigned n_fds = how >> 3 & 3, known = MIN(stage->n_kept, KEPT_MAX);
    int fds[4], made = -1;
    struct wire_header header = {.object = more & 7};

    if (known == 0)
        n_fds = 0;
    for (unsigned i = 0; i < n_fds; i++) {
        fds[i] = stage->kept[(more + i) % known];
        if (i == 0 && how < 200)
            header.object = stage->kept_of[more % known];
    }
    if (how > 250 && n_fds > 0)
        fds[0] = made = seam_file();
    SAY(dispatcher, handed, header, .version = how & 1, .kind = 1 + (how & 3 ? 0 : more % 5),
        .state = {tape->at, (uint32_t)MIN((size_t)(tape->end - tape->at), 16)}, .plan = more, .uid = how,
        .known = link_text(""));
    cleanup_close(&made);
}

static void say_launch(struct stage *stage, struct process *dispatcher, struct tape *tape) {
    uint8_t buffer[256], how = take(tape);
    struct wire_header header = {.object = 1 + (how & 7)};
    struct wire_launch launch = {.plan = how >> 4 & 3};

    if (how > 240)
        header.object = 0;
    /* Counted before it is heard: never spoilt. */
    if (dispatcher != NULL && dispatcher->peer >= 0)
        stage->asked++;
    send_packet(dispatcher, buffer, wire_launch_encode(&header, &launch, buffer, sizeof(buffer)), NULL, 0);
}

static void act_dispatcher(struct stage *stage, struct tape *tape, uint8_t what) {
    struct process *dispatcher = seam_choose(PROCESS_DISPATCHER, what / 16);
    uint8_t buffer[4096], how = take(tape);
    int page = -1, fds[1] = {-1};
    unsigned n_fds = 0;
    const struct wire_header header = {.object = 1 + (how & 7), .seq = how};

    if (dispatcher != NULL && (what % 8 == 4 || what % 8 == 6))
        watch_others(stage, dispatcher);
    switch (what % 8) {
    case 0:
        fds[0] = page = seam_file();
        n_fds = how & 1;
        SAY(dispatcher, hello, header, .role = WIRE_ROLE_DISPATCH, .build = link_text(how > 240 ? "b2" : ""),
            .features = 1);
        break;
    case 1:
        SAY(dispatcher, serving, header, 0);
        break;
    case 2:
    case 3:
        say_launch(stage, dispatcher, tape);
        break;
    case 4:
        SAY(dispatcher, end, header, .reason = how >> 4);
        break;
    case 5:
        SAY(dispatcher, arena, header, .size = 0);
        break;
    case 6:
        say_handed(stage, dispatcher, tape);
        break;
    default:
        SAY(dispatcher, beat, header, 0);
    }
    cleanup_close(&page);
}

/* ---- zygotes, and what they fork ------------------------------------------------------------------------------------ */

static struct process *make_child(struct forked *forked, int *ret_pidfd) {
    struct process *child = seam_process(PROCESS_ENVIRONMENT, ret_pidfd);
    const struct process *anchor = seam_find(forked->anchor);

    if (child == NULL)
        return NULL;
    forked->child = child->pid;
    child->anchor = forked->anchor;
    if (anchor == NULL || anchor->dead)
        seam_die(child, SIGKILL);
    return child;
}

static void act_zygote(struct stage *stage, struct tape *tape, uint8_t what) {
    uint8_t buffer[256], how = take(tape), more = take(tape);
    struct forked *forked = stage->n_forks == 0 ? NULL : &stage->forks[more % MIN(stage->n_forks, FORKS_MAX)];
    struct process *zygote =
        forked == NULL || how > 240 ? seam_choose(PROCESS_ZYGOTE, more) : seam_find(forked->zygote);
    struct wire_header header = {.object = forked != NULL ? forked->serial : more};
    int pidfd = -1, fds[1];
    unsigned n_fds = 1;

    if (what % 4 == 0 || forked == NULL) {
        n_fds = 0;
        SAY(seam_choose(PROCESS_ZYGOTE, how), zygote_ready, header, .version = link_text("3.11"));
        return;
    }
    if (what % 4 == 1) {
        static const char *const steps[] = {"setns", "clone", "mount", ""};
        n_fds = 0;
        SAY(zygote, fork_failed, header, .step = link_text(steps[how & 3]), .error = more & 1 ? ENOMEM : how);
        return;
    }
    struct process *child = forked->child == 0 ? make_child(forked, &pidfd) : NULL;
    uint32_t pid = child != NULL ? (uint32_t)child->pid : (uint32_t)forked->child;
    if (how > 200) /* somebody else, or nobody of ours */
        pid = more & 1 ? (uint32_t)seam.processes[more].pid : 1000u + more;
    if (child != NULL && how < 40)
        seam_die(child, how << 8);
    fds[0] = pidfd >= 0 ? pidfd : (pidfd = seam_file());
    n_fds = how != 200;
    SAY(zygote, forked, header, .pid = pid);
    cleanup_close(&pidfd);
}

/* ---- side processes, snapshots, the machine -------------------------------------------------------------------------- */

static void give_leaf(struct stage *stage, int error) {
    struct leaf leaf;

    if (seam.wanted_leaves == 0)
        return;
    seam.wanted_leaves--;
    leaf_init(&leaf);
    if (error == 0) {
        snprintf(leaf.cgroup.name, sizeof(leaf.cgroup.name), "e%u", ++seam.leaves_given);
        leaf.cgroup.fds[0] = seam_file();
        leaf.freeze = seam_file();
        leaf.peak = seam_file();
    }
    stage->server.seats.seater.made(&stage->server, error, &leaf);
}

/* As tasks.c has it: what its side process reports. */
struct report {
    int kind, status;
    bool oom;
    struct jail_error error;
};

static void act_side(struct stage *stage, struct tape *tape, uint8_t what) {
    struct server *server = &stage->server;
    uint8_t how = take(tape);
    const int error = how > 200 ? -EIO : 0;
    struct process *process;

    switch (what % 5) {
    case 0:
        give_leaf(stage, error);
        break;
    case 1:
        if (seam.n_moves > 0)
            server->seats.seater.moved(server, seam.moves[--seam.n_moves], error);
        break;
    case 2:
        if (seam.n_images > 0)
            server->pools.imager.made(server, seam.images[--seam.n_images], error != 0 ? error : seam_file(), "image");
        break;
    case 3:
        process = seam_choose(PROCESS_MAKER, how);
        if (process != NULL && process->wanted_cells > 0) {
            process->wanted_cells--;
            (void)send(process->peer, error != 0 ? "\2" : "\1", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        break;
    default:
        process = seam_choose(PROCESS_TASK, how);
        struct report report = {.kind = how % 4, .status = how};
        send_packet(process, (const uint8_t *)&report, how > 250 ? 7 : (int)sizeof(report), NULL, 0);
    }
}

static void act_snapshot(struct stage *stage, struct tape *tape, uint8_t what) {
    static const uint8_t zeros[40000];
    uint8_t how = take(tape);

    if (stage->n_snapshots == 0)
        return;
    int *pipe = &stage->snapshots[what % stage->n_snapshots];
    if (how < 32 && *pipe >= 0)
        (void)!write(*pipe, &how, 1);
    else if (how < 96 && *pipe >= 0)
        (void)!write(*pipe, tape->at, MIN((size_t)(tape->end - tape->at), how));
    else if (how < 160 && *pipe >= 0)
        (void)!write(*pipe, zeros, how * 250u);
    else if (how < 200 && *pipe >= 0) /* as the one who writes it ends it */
        (void)!write(*pipe,
            "\0\0\0\0\0\0\0\0"
            "RTSNAP\1",
            16);
    if (how > 128) {
        cleanup_close(pipe);
        *pipe = stage->snapshots[--stage->n_snapshots];
    }
}

static void act_machine(struct stage *stage, struct tape *tape, uint8_t what) {
    static const uint32_t steps_ms[] = {1, 5, 50, 200, 1000, 3000, 10001, 61000};
    uint8_t how = take(tape);
    struct process *process = seam_choose(what / 16 % (PROCESS_TASK + 1), how);

    switch (what % 6) {
    case 0:
        if (process != NULL)
            seam_die(process, how & 1 ? SIGKILL : (how & 6) << 8);
        break;
    case 1:
    case 2:
        seam.now_us += steps_ms[how & 7] * UINT64_C(1000);
        break;
    case 3:
        seam.faults = how < 128 ? 0 : how & 15;
        break;
    case 4:
        if (how < 200)
            supervise_upgrade(&stage->server);
        else if (how > 250)
            supervise_stop(&stage->server);
        break;
    default:
        reap(stage);
    }
}

/* Bytes of the input as a whole packet, to anybody. */
static void act_noise(struct stage *stage, struct tape *tape, uint8_t what) {
    uint8_t how = take(tape), size = take(tape);
    uint32_t n = (uint32_t)MIN(size, (size_t)(tape->end - tape->at));
    struct process *process = seam_choose(what / 16 % (PROCESS_ZYGOTE + 1), how);
    int fds[3];

    if (process != NULL && process->kind == PROCESS_DISPATCHER)
        stage->asked++; /* it may be a LAUNCH */
    stage->noisy = true;
    for (unsigned i = 0; i < 3; i++)
        fds[i] = stage->server.state_dir;
    send_packet(process, tape->at, (int)n, fds, how & 3);
    tape->at += n;
}

static unsigned open_descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    unsigned n = 0;
    CHECK(directory != NULL);
    while (readdir(directory) != NULL)
        n++;
    closedir(directory);
    return n;
}

static void act(struct stage *stage, struct tape *tape) {
    static void (*const acts[])(struct stage *, struct tape *, uint8_t) = {act_control, act_control, act_control,
        act_dispatcher, act_dispatcher, act_dispatcher, act_dispatcher, act_zygote, act_zygote, act_zygote, act_side,
        act_side, act_side, act_snapshot, act_machine, act_noise};
    uint8_t what = take(tape);

    acts[what % ARRAY_SIZE(acts)](stage, tape, take(tape));
    turn(stage);
    check_others(stage);
    if (what > 127)
        reap(stage);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct tape tape = {data, data + size};
    const unsigned before = open_descriptors();
    struct stage *stage = stage_open(take(&tape));

    for (unsigned i = 0; i < ACTS_MAX && tape.at < tape.end; i++)
        act(stage, &tape);
    /* Whoever waits is refused in the end. */
    for (unsigned i = 0; i < 30 && !stage->noisy; i++) {
        seam.now_us += 1000000;
        turn(stage);
    }
    if (!stage->noisy && seam.dispatchers_lost == 0 && stage->server.phase == PHASE_RUNNING)
        CHECK(stage->granted + stage->refused == stage->asked);
    stage_close(stage);
    CHECK(open_descriptors() == before);
    return 0;
}
