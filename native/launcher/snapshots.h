/* Snapshots of initialised environments (SnapStart), one a plan: native/zygote/include/zygote/snapshot.h says what they
 * are and why they are no danger. Here: which launch makes one, gathering it, and giving it to later launches.
 *
 *   NONE      the next launch makes one: its environment gets a pipe
 *   MAKING    that environment is being initialised or writes; other launches are ordinary ones
 *   READY     launches of the zygote that the maker came from are filled from the file
 *   REFUSED   the environment cannot be copied, or copies do not live; all launches are ordinary ones
 *
 * A snapshot is good for children of one process of the zygote and goes with it. It is made anew when it is old or was
 * used often, while the old one still serves. It lies in the launcher's memory, of which all have a share: with those
 * that serve no more but that environments still have in their memory, and so keep in ours. One that does not fit beside
 * those is not kept, and later made again. Those that are being made have another share: where it does not suffice, the
 * largest of them breaks off, whoever writes next, and each has a limit of time. So who writes much and stands still is
 * in nobody's way; nor is who writes little at a time, for it is read a thousand times a second at most. Nothing in the
 * file is looked at but its last eight bytes and, when it is a single byte, that. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"

struct environment;
struct plan;
struct server;
struct zygote;

/* Beyond the function's memory, which its own pages fit into: tables, padding. */
#define SNAPSHOT_EXTRA (UINT64_C(64) << 20)
/* Of the machine's memory, where the settings do not say how much: all snapshots together, beyond which the one that was
 * used longest ago goes, of those that no environment has in its memory; and as much again for all that are being made. */
#define SNAPSHOT_SHARE 8
/* Before another is made of a function whose snapshot broke off for want of room. */
#define SNAPSHOT_PAUSE_US UINT64_C(10000000)
/* Copies that ended at once, in a row, before no more are made. */
#define SNAPSHOT_FAILURES 3u
/* What counts as at once. */
#define SNAPSHOT_EARLY_US UINT64_C(1000000)

/* A file's memory. It is there for as long as the file is to be given, or is mapped in an environment: by our code, or by
 * the function's, which can keep what it is filled from. */
struct footprint {
    struct server *server;
    uint64_t size;
    unsigned users; /* environments, and the snapshot */
};

struct snapshot {
    struct server *server;
    struct plan *plan;
    uint8_t mode;    /* WIRE_SNAPSHOT_MODE_* */
    uint8_t refusal; /* WIRE_SNAPSHOT_REFUSAL_*; none: not refused */
    bool asked;      /* there was a launch before: `automatic` begins with the second */
    unsigned failures;
    struct {
        int file;                    /* -1: there is none */
        struct footprint *footprint; /* of the file */
        struct zygote *zygote;
        uint32_t incarnation;
        unsigned used;
        uint64_t since_us, last_us;
    } ready;
    struct {
        struct environment *environment; /* NULL: none */
        struct watch watch;
        struct timer limit; /* on from the first byte */
        struct timer rest;  /* until the pipe is looked at again */
        int pipe, file;
        uint64_t size;
        uint64_t after_us; /* not before */
    } making;
};

void snapshot_init(struct snapshot *snapshot, struct server *server, struct plan *plan);
/* A plan was put; fresh: its code is another than before. */
void snapshot_put(struct snapshot *snapshot, uint8_t mode, bool fresh);
void snapshot_free(struct snapshot *snapshot);
/* WIRE_SNAPSHOT_STATE_*. */
uint8_t snapshot_state(const struct snapshot *snapshot);
/* May a launch of the plan go to that zygote? Not to another while there is a snapshot of one that lives. */
bool snapshot_fits(const struct snapshot *snapshot, const struct zygote *zygote);
/* What FORK of the environment says, WIRE_FORK_SNAPSHOT_*, and the descriptor that goes with it, or -1. Of TAKE it is the
 * caller's to close. */
uint8_t snapshot_launch(struct snapshot *snapshot, struct environment *environment, int *ret_fd);
/* Nothing of the environment is left, nor of its memory. */
void snapshot_let_go(struct environment *environment);
/* The environment's process ended, or never began. */
void snapshot_environment_gone(struct environment *environment);
/* The process of the zygote died. */
void snapshots_zygote_gone(struct server *server, const struct zygote *zygote);
