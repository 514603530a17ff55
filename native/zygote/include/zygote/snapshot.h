/* Snapshots (SnapStart): the memory of an initialised environment, taken once and put into later environments of the same
 * function version, which then need no init phase.
 *
 * Who does what: an environment that the launcher chose (the *maker*) has descriptor SNAPSHOT_DESCRIPTOR, a pipe. When its
 * init is done it writes itself into it: snapshot_take. The launcher gathers that, unread, in a sealed memory file, and
 * gives the file to later children of the same zygote, which, when they are environments in every respect (jail_enter is
 * through), fill their memory from it: snapshot_restore, which continues where snapshot_take was called.
 *
 * Why nothing is gained by a hostile function: the maker has one descriptor more than others, a pipe that it may write
 * to, and no right of any kind; what it writes is data to everybody but the environment that is filled with it. That
 * one is a child of the zygote, made by our code with its own namespaces, id, cgroup, limits and seccomp filter, before a
 * byte of the file is looked at; whatever the file says, it can do to that environment what the function's code can do
 * to it anyway. The maker may lie, write garbage, stop half-way, hang or be killed: the file is then refused (it is not
 * whole) or the environments filled with it die, and the launcher goes back to ordinary ones. There is no living template:
 * no process that could be attacked, keeps descriptors, or takes others along when it dies. Environments of one snapshot
 * share nothing that can be written; the file is sealed, and closed before the first line of the function's code runs.
 *
 * Why it works: all children of one zygote process have the same address layout, so pointers stay good. What the kernel
 * keeps of a process beside memory is put back as far as it is known to matter (signal handlers, alternate stack, umask,
 * limits); a process that has more (threads, open files, shared memory, children, timers, files in /tmp) is not taken:
 * enum snapshot_refusal says why. The maker has a process id that no other environment has: what notices a fork by it
 * (OpenSSL, tempfile) notices this too.
 *
 * The file: struct snapshot_head, regions, runs, paths; then, from the next page on, the contents of the runs; last, one
 * page that ends with SNAPSHOT_END. A file of one byte is an enum snapshot_refusal. Both sides are the same build: no
 * other version ever reads it. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#define SNAPSHOT_DESCRIPTOR 4
#define SNAPSHOT_MAGIC UINT64_C(0x31746f687370616e)
#define SNAPSHOT_END UINT64_C(0x646e65746f687370)
/* The maker's process id inside: environments' begin at 2 and a shell is not used so often. */
#define SNAPSHOT_PID 30000

/* Why a process cannot be taken; its number is what the launcher and the control plane are told. */
enum snapshot_refusal {
    SNAPSHOT_TAKEN = 0,
    SNAPSHOT_THREADS,     /* threads are running */
    SNAPSHOT_DESCRIPTORS, /* files, sockets, pipes are open */
    SNAPSHOT_SHARED,      /* memory that is shared and can be written */
    SNAPSHOT_CHILDREN,    /* other processes are running */
    SNAPSHOT_TIMERS,      /* a timer is set */
    SNAPSHOT_IPC,         /* System V IPC objects */
    SNAPSHOT_FILES,       /* something is in /tmp */
    SNAPSHOT_MAPPINGS,    /* a mapping that cannot be made again: a deleted file, a device, huge pages */
    SNAPSHOT_FILTERS,     /* it has put itself under further restrictions */
    SNAPSHOT_TOO_LARGE,
    SNAPSHOT_FAILED, /* a system call failed, or a hook before the snapshot raised */
    SNAPSHOT_REFUSALS,
};

/* Memory that the maker and its restored copies have in common and that is not part of the snapshot. Called in the zygote,
 * before any fork. -ENOMEM. */
int snapshot_reserve(void);

/* In the environment that is to be the maker, before any code of the function's: notes what is the zygote's. */
int snapshot_begin(void);

/* Writes the process into the pipe. 0: done; 1: this is a restored environment, long afterwards; otherwise minus an enum
 * snapshot_refusal, which was written instead. The caller has one thread and closes the descriptor. */
int snapshot_take(int pipe);
/* Instead of the above. */
void snapshot_refuse(int pipe, enum snapshot_refusal refusal);

/* Becomes what the file says; closes it. Returns only when the file is not a whole snapshot, before anything was
 * changed: a negative errno. A failure later on ends the process with SNAPSHOT_EXIT. tid_address: where libc keeps this
 * thread's id. */
int snapshot_restore(int file, pid_t *tid_address);
#define SNAPSHOT_EXIT 124
