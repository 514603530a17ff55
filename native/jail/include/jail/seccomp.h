/* The seccomp filters, generated at build time by seccomp/compile.py from seccomp/policy.toml for the machine built for.
 * Applying one is one system call on constant data. Part of `jail_core`. */
#pragma once

#include <linux/filter.h>
#include <stddef.h>

struct seccomp_filter {
    const char *name;         /* "function", "dispatch" */
    const char *architecture; /* "x86_64", "aarch64" */
    unsigned short size;
    const struct sock_filter *instructions;
};

/* Every filter for every architecture, for tests; ends with a NULL name. */
extern const struct seccomp_filter seccomp_filters[];

/* The filters of this machine. Environments, tasks, runtimed-jail: */
extern const struct seccomp_filter *const seccomp_function;
/* The dispatcher: what its loop needs; no new sockets, no exec, no fork, no files by path except what logs need. */
extern const struct seccomp_filter *const seccomp_dispatch;

/* Needs no_new_privs. Returns 0 or a negative errno. */
int seccomp_apply(const struct seccomp_filter *filter);
