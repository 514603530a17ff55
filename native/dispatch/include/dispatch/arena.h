/* Arenas: one block of memory that an environment and the dispatcher share, for bodies above ARENA_LEAST bytes, either way.
 * Runs in the loop. Whoever has none, or not yet, sends bodies in CHUNKs: an arena only ever makes it faster.
 *
 *   NONE ─first large body, asked of the launcher→ ASKED ─ARENA→ HELD ─ATTACH and ARENA, before an INVOKE→ SENT
 *        ─ATTACHED→ SHARED        what fails on the way: REFUSED, for good
 *
 * The environment is not to be trusted, so:
 * - The size is sealed by the launcher: nobody's reading can end in SIGBUS.
 * - Memory is the environment's own: it touches each page first, inside its cgroup, and before a byte is written or read
 *   here the kernel is asked whether the pages are there (SEEK_HOLE). Once SHARED, no page can be taken out of it again
 *   (F_SEAL_FUTURE_WRITE forbids that, and writing by any other way than mappings that exist), so neither reading nor
 *   writing here ever charges us.
 * - Lengths, states and errors come by the socket only. Bytes in the arena may change while they are looked at: they are
 *   copied or sent on, never interpreted. An event is written there from our own copy, which was checked.
 * - It is never given to another environment: it goes with its own, or earlier when that is idle (arena_release). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct environment;

/* Bodies up to here go through the socket. */
#define ARENA_LEAST (256u << 10)
/* Idle for so long, an environment gives the memory back: once more, the first large body goes by the socket. */
#define ARENA_IDLE_US 5000000u
/* And is given so long for it, before it is frozen again. */
#define ARENA_LEAVE_US 100000u

enum arena_state { ARENA_NONE, ARENA_ASKED, ARENA_HELD, ARENA_SENT, ARENA_SHARED, ARENA_REFUSED };

struct arena {
    enum arena_state state;
    int fd;
    uint8_t *memory; /* mapped, `size` bytes */
    uint32_t size;
    uint32_t there; /* bytes from the first on that are known to have memory */
};

void arena_init(struct environment *environment);
void arena_done(struct environment *environment);
/* A large body, either way, that could not take it. */
void arena_want(struct environment *environment);
/* From the launcher; takes the descriptor, which is -1 when there can be no arena. */
void arena_came(struct environment *environment, int fd, uint32_t size);
/* Before an INVOKE with that body: shares the arena, or has more of it filled. 0 or a negative errno: the channel broke. */
int arena_prepare(struct environment *environment, uint32_t total);
/* May the environment answer through it? */
bool arena_is_offered(const struct environment *environment);
/* ATTACHED came. 0 or -EPROTO: the environment cheats. */
int arena_attached(struct environment *environment, uint32_t error);
/* Has so much of it memory, and is it shared? */
bool arena_holds(struct environment *environment, uint32_t total);
bool arena_is_shared(const struct environment *environment);
/* The environment is idle, and not frozen: gives the memory back. */
void arena_release(struct environment *environment);
