/* The seater; see the header. The upper half runs in the side process, the lower in the launcher.
 *
 * Packets, both ways, are of one process with itself: structs as they lie in memory. */
#include "seater.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* Measured: a move within 12 ms of the last takes 15-70 us for four hierarchies, after 50 ms 6,000-15,000. */
#define TICK_MS 8
/* How long after the last seat the fast path is kept open: longer than the pauses within a burst of cold starts. */
#define WARM_US 1000000
/* A leaf that is not empty yet is tried again this often. */
#define RETRY_MS 2
/* Leaves that wait to be empty; more than that are left for the sweep at the next start. */
#define PENDING_MAX 16384

enum seater_kind { SEATER_MAKE, SEATER_MOVE, SEATER_REMOVE };

struct seater_request {
    enum seater_kind kind;
    uint64_t tag;
    pid_t pid; /* MOVE; the leaf's directories come as descriptors */
    char name[CGROUP_NAME_MAX];
};

enum seater_descriptors { SEATER_FREEZE = 1, SEATER_PEAK = 2 };

struct seater_answer {
    enum seater_kind kind;
    uint64_t tag;
    int error;
    unsigned hierarchies; /* MAKE: that many directory descriptors come first */
    unsigned descriptors; /* then these, where the machine has them */
    char name[CGROUP_NAME_MAX];
};

/* ---- the side process ---------------------------------------------------------------------------------------- */

struct seats {
    const struct cgroup_tree *tree;
    int socket;
    uint64_t serial; /* names leaves: e1, e2, ... */
    char (*pending)[CGROUP_NAME_MAX];
    unsigned n_pending;
    uint64_t warm_until_us;
    int warm; /* v1: a cgroup.procs to write to; otherwise -1 */
};

static int make_leaf(struct seats *seats, struct leaf *ret) {
    char name[CGROUP_NAME_MAX];
    struct leaf leaf;

    leaf_init(&leaf);
    snprintf(name, sizeof(name), "e%llu", (unsigned long long)++seats->serial);
    int r = cgroup_make(seats->tree, name, &leaf.cgroup);
    if (r < 0)
        return r;
    leaf.freeze = cgroup_open_freeze(seats->tree, &leaf.cgroup);
    leaf.peak = cgroup_open_peak(seats->tree, &leaf.cgroup);
    *ret = leaf;
    return 0;
}

static void make(struct seats *seats) {
    struct seater_answer answer = {.kind = SEATER_MAKE, .hierarchies = seats->tree->n};
    struct leaf leaf;
    int fds[CGROUP_HIERARCHIES + 2];
    unsigned n = 0;

    leaf_init(&leaf);
    answer.error = make_leaf(seats, &leaf);
    if (answer.error == 0) {
        memcpy(answer.name, leaf.cgroup.name, sizeof(answer.name));
        for (unsigned i = 0; i < seats->tree->n; i++)
            fds[n++] = leaf.cgroup.fds[i];
        if (leaf.freeze >= 0) {
            answer.descriptors |= SEATER_FREEZE;
            fds[n++] = leaf.freeze;
        }
        if (leaf.peak >= 0) {
            answer.descriptors |= SEATER_PEAK;
            fds[n++] = leaf.peak;
        }
    }
    (void)packet_send(seats->socket, &answer, sizeof(answer), fds, n);
    leaf_close(&leaf);
}

static void move(struct seats *seats, const struct seater_request *request, const struct packet *packet) {
    struct seater_answer answer = {.kind = SEATER_MOVE, .tag = request->tag};
    struct cgroup cgroup = {0};

    for (unsigned i = 0; i < CGROUP_HIERARCHIES; i++)
        cgroup.fds[i] = i < packet->n_fds ? packet->fds[i] : -1;
    answer.error = cgroup_attach(seats->tree, &cgroup, request->pid);
    (void)packet_send(seats->socket, &answer, sizeof(answer), NULL, 0);
    seats->warm_until_us = clock_monotonic_us() + WARM_US;
}

/* True when the directories are gone, or will not go by trying again. */
static bool remove_leaf(const struct seats *seats, const char *name) {
    bool busy = false;
    for (unsigned i = 0; i < seats->tree->n; i++)
        if (unlinkat(seats->tree->hierarchies[i].fd, name, AT_REMOVEDIR) < 0 && errno == EBUSY)
            busy = true;
    return !busy;
}

static void add_pending(struct seats *seats, const char *name) {
    if (seats->n_pending < PENDING_MAX && strlen(name) < CGROUP_NAME_MAX)
        memcpy(seats->pending[seats->n_pending++], name, strlen(name) + 1);
}

/* An environment's, or a task's (tasks.c), which is removed here too. */
static bool is_leaf(const char *name) {
    return (name[0] == 'e' || name[0] == 't') && name[1] >= '0' && name[1] <= '9';
}

static bool is_known(const struct seater_known *known, const char *name) {
    for (size_t i = 0; i < known->n; i++)
        if (strcmp(known->names[i], name) == 0)
            return true;
    return false;
}

/* What an earlier seater was asked to remove, or has made without anybody hearing of it. */
static void adopt_strays(struct seats *seats, const struct seater_known *known) {
    for (unsigned i = 0; i < seats->tree->n; i++) {
        int copy = openat(seats->tree->hierarchies[i].fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *directory = copy < 0 ? NULL : fdopendir(copy);
        if (directory == NULL) {
            cleanup_close(&copy);
            continue;
        }
        for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
            if (is_leaf(entry->d_name) && !is_known(known, entry->d_name) && !remove_leaf(seats, entry->d_name))
                add_pending(seats, entry->d_name); /* once for each hierarchy that has it: harmless */
        closedir(directory);
    }
}

static void retry_pending(struct seats *seats) {
    unsigned kept = 0;
    for (unsigned i = 0; i < seats->n_pending; i++)
        if (!remove_leaf(seats, seats->pending[i]))
            memmove(seats->pending[kept++], seats->pending[i], CGROUP_NAME_MAX);
    seats->n_pending = kept;
}

static void take_request(struct seats *seats, struct packet *packet) {
    struct seater_request request;
    if (packet->size != sizeof(request))
        return;
    memcpy(&request, packet->data, sizeof(request));
    if (request.kind == SEATER_MAKE)
        make(seats);
    else if (request.kind == SEATER_MOVE)
        move(seats, &request, packet);
    else if (!remove_leaf(seats, request.name))
        add_pending(seats, request.name);
}

/* Moving oneself to where one is takes the same locks as any move. In one hierarchy only: the lock is one for all. */
static int open_warm(const struct cgroup_tree *tree) {
    for (unsigned i = 0; i < tree->n; i++)
        if (!tree->hierarchies[i].unified)
            return openat(tree->hierarchies[i].fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    return -1;
}

struct seater_life {
    const struct cgroup_tree *tree;
    const struct seater_known *known;
    uint32_t incarnation;
};

static void seats_run(int socket, void *argument) {
    const struct seater_life *life = argument;
    uint8_t buffer[SIDE_MESSAGE_MAX];
    struct seats seats = {.tree = life->tree, .socket = socket, .serial = (uint64_t)life->incarnation << 32};
    struct pollfd poller = {.fd = socket, .events = POLLIN};

    seats.pending = malloc((size_t)PENDING_MAX * CGROUP_NAME_MAX);
    if (seats.pending == NULL)
        return;
    seats.warm = seats.tree->version == 2 ? -1 : open_warm(seats.tree);
    adopt_strays(&seats, life->known);
    for (;;) {
        bool warm = seats.warm >= 0 && clock_monotonic_us() < seats.warm_until_us;
        if (poll(&poller, 1, seats.n_pending > 0 ? RETRY_MS : warm ? TICK_MS : -1) > 0) {
            struct packet packet = {.data = buffer, .capacity = sizeof(buffer)};
            if (packet_receive(socket, &packet, 0) <= 0)
                return;
            take_request(&seats, &packet);
            packet_close_fds(&packet);
            continue;
        }
        retry_pending(&seats);
        if (warm)
            (void)!write(seats.warm, "0", 1);
    }
}

/* ---- the launcher ---------------------------------------------------------------------------------------------- */

void leaf_init(struct leaf *leaf) {
    memset(leaf, 0, sizeof(*leaf));
    for (unsigned i = 0; i < CGROUP_HIERARCHIES; i++)
        leaf->cgroup.fds[i] = -1;
    leaf->freeze = leaf->peak = -1;
}

void leaf_close(struct leaf *leaf) {
    cleanup_close(&leaf->freeze);
    cleanup_close(&leaf->peak);
    for (unsigned i = 0; i < CGROUP_HIERARCHIES; i++)
        cleanup_close(&leaf->cgroup.fds[i]);
    leaf->cgroup.name[0] = '\0';
}

static unsigned descriptors_of(const struct seater_answer *answer) {
    return answer->hierarchies + ((answer->descriptors & SEATER_FREEZE) != 0 ? 1 : 0) +
        ((answer->descriptors & SEATER_PEAK) != 0 ? 1 : 0);
}

static void message(struct side *side, struct packet *packet) {
    struct seater *seater = (struct seater *)(void *)((char *)side - offsetof(struct seater, side));
    struct seater_answer answer;
    struct leaf leaf;
    unsigned n = 0;

    if (packet->size != sizeof(answer))
        return;
    memcpy(&answer, packet->data, sizeof(answer));
    if (answer.kind == SEATER_MOVE) {
        seater->moved(seater->owner, answer.tag, answer.error);
        return;
    }
    leaf_init(&leaf);
    memcpy(leaf.cgroup.name, answer.name, sizeof(leaf.cgroup.name));
    if (answer.error == 0 && packet->n_fds != descriptors_of(&answer)) { /* no room for them here */
        answer.error = -EMFILE;
        (void)seater_remove(seater, &leaf);
    }
    if (answer.error == 0) {
        for (unsigned i = 0; i < answer.hierarchies; i++)
            leaf.cgroup.fds[i] = steal_fd(&packet->fds[n++]);
        if ((answer.descriptors & SEATER_FREEZE) != 0)
            leaf.freeze = steal_fd(&packet->fds[n++]);
        if ((answer.descriptors & SEATER_PEAK) != 0)
            leaf.peak = steal_fd(&packet->fds[n++]);
    }
    seater->made(seater->owner, answer.error, &leaf);
}

int seater_start(struct seater *seater, struct loop *loop, struct reaper *reaper, const struct cgroup_tree *cgroups,
    const struct seater_known *known) {
    struct seater_life life = {.tree = cgroups, .known = known, .incarnation = seater->incarnation++};
    int keep[2 * CGROUP_HIERARCHIES];
    unsigned n = 0;
    for (unsigned i = 0; i < cgroups->n; i++) {
        keep[n++] = cgroups->hierarchies[i].fd;
        keep[n++] = cgroups->hierarchies[i].parent;
    }
    seater->side.message = message;
    return side_start(&seater->side, loop, reaper, "runtimed-seater", seats_run, &life, keep, n);
}

int seater_make(struct seater *seater) {
    struct seater_request request = {.kind = SEATER_MAKE};
    return side_send(&seater->side, &request, sizeof(request), NULL, 0);
}

int seater_move(
    struct seater *seater, uint64_t tag, pid_t pid, const struct cgroup_tree *cgroups, const struct leaf *leaf) {
    struct seater_request request = {.kind = SEATER_MOVE, .tag = tag, .pid = pid};
    return side_send(&seater->side, &request, sizeof(request), leaf->cgroup.fds, cgroups->n);
}

int seater_remove(struct seater *seater, const struct leaf *leaf) {
    struct seater_request request = {.kind = SEATER_REMOVE};
    memcpy(request.name, leaf->cgroup.name, sizeof(request.name));
    return side_send(&seater->side, &request, sizeof(request), NULL, 0);
}
