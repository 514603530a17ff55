/* Arenas; see the header. */
#include "dispatch/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "dispatch/dispatch.h"
#include "dispatch/packet.h"

void arena_init(struct environment *environment) {
    environment->arena = (struct arena){.fd = -1};
}

static void drop(struct environment *environment, enum arena_state next) {
    struct arena *arena = &environment->arena;
    if (arena->memory != NULL)
        (void)munmap(arena->memory, arena->size);
    if (arena->state == ARENA_SHARED)
        count_less(&environment->dispatch->counters.node->arenas, 1);
    cleanup_close(&arena->fd);
    *arena = (struct arena){.state = next, .fd = -1};
}

void arena_done(struct environment *environment) {
    drop(environment, ARENA_REFUSED);
}

void arena_want(struct environment *environment) {
    if (environment->arena.state != ARENA_NONE || environment->runtime != NULL || environment->ended)
        return;
    environment->arena.state = ARENA_ASKED;
    launcher_ask_arena(environment);
}

void arena_came(struct environment *environment, int fd, uint32_t size) {
    struct arena *arena = &environment->arena;
    _cleanup_close_ int taken = fd;
    void *memory;

    if (arena->state != ARENA_ASKED)
        return;
    arena->state = ARENA_REFUSED;
    if (fd < 0 || size < RESPONSE_BODY_MAX)
        return;
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return;
    *arena = (struct arena){.state = ARENA_HELD, .fd = steal_fd(&taken), .memory = memory, .size = size};
}

static int send_attach(struct environment *environment, uint32_t size, uint32_t fill) {
    struct dispatch *dispatch = environment->dispatch;
    struct wire_header header = {.object = environment->id};
    struct wire_attach attach = {.size = size, .fill = fill};
    int length = wire_attach_encode(&header, &attach, dispatch->packet_out, WIRE_MESSAGE_MAX);
    return packet_send_plain(environment->channel.fd, dispatch->packet_out, length);
}

static int send_arena(struct environment *environment) {
    struct dispatch *dispatch = environment->dispatch;
    struct wire_header header = {.object = environment->id};
    struct wire_arena message = {.size = environment->arena.size};
    int length = wire_arena_encode(&header, &message, dispatch->packet_out, WIRE_MESSAGE_MAX);
    if (length < 0)
        return length;
    return packet_send(environment->channel.fd, dispatch->packet_out, (size_t)length, &environment->arena.fd, 1);
}

/* Bodies grow: by powers of two, so that this is asked for a few times only. */
static uint32_t room_for(const struct arena *arena, uint32_t total) {
    uint32_t room = 2 * ARENA_LEAST;
    while (room < total)
        room *= 2;
    return MIN(room, arena->size);
}

/* Where the first page without memory is. Once it is sealed that never comes nearer. */
static void look(struct arena *arena) {
    off_t hole = lseek(arena->fd, 0, SEEK_HOLE);
    arena->there = hole > 0 ? (uint32_t)MIN(hole, (off_t)arena->size) : 0;
}

int arena_prepare(struct environment *environment, uint32_t total) {
    struct arena *arena = &environment->arena;
    uint32_t fill = total > ARENA_LEAST ? room_for(arena, total) : 0;
    int r;

    if (arena->state == ARENA_SHARED && fill > 0 && !arena_holds(environment, total)) {
        r = send_attach(environment, 0, fill);
        return r == -EAGAIN ? 0 : r;
    }
    if (arena->state != ARENA_HELD)
        return 0;
    r = send_attach(environment, arena->size, fill);
    if (r == -EAGAIN)
        return 0;
    arena->state = ARENA_SENT;
    return r < 0 ? r : send_arena(environment); /* one without the other must not be */
}

bool arena_is_offered(const struct environment *environment) {
    return environment->arena.state == ARENA_SENT || environment->arena.state == ARENA_SHARED;
}

int arena_attached(struct environment *environment, uint32_t error) {
    struct arena *arena = &environment->arena;

    if (arena->state != ARENA_SENT)
        return -EPROTO;
    if (error != 0) {
        drop(environment, ARENA_REFUSED);
        return 0;
    }
    /* Refused only when the environment has put seals of its own there. */
    if (fcntl(arena->fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
        return -EPROTO;
    arena->state = ARENA_SHARED;
    count_one(&environment->dispatch->counters.node->arenas);
    look(arena);
    return 0;
}

bool arena_holds(struct environment *environment, uint32_t total) {
    struct arena *arena = &environment->arena;
    if (arena->state != ARENA_SHARED || total > arena->size)
        return false;
    if (total > arena->there)
        look(arena);
    return total <= arena->there;
}

bool arena_is_shared(const struct environment *environment) {
    return environment->arena.state == ARENA_SHARED;
}

void arena_release(struct environment *environment) {
    if (environment->arena.state != ARENA_SHARED)
        return;
    if (send_attach(environment, 0, 0) >= 0)
        drop(environment, ARENA_NONE);
}
