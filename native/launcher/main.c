/* runtimed-launcher: the one privileged process. Executed by `runtimed` as root with the boot configuration on
 * descriptor 3; runs until SIGTERM, and leaves nothing behind. SIGHUP replaces the dispatcher. Its state: launcher.h. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "control.h"
#include "jail/jail.h"
#include "launcher.h"
#include "place.h"

/* What the whole process needs before anything is opened. */
static int prepare_process(void) {
    struct rlimit limit;

    (void)signal(SIGPIPE, SIG_IGN);
    (void)umask(022);
    (void)prctl(PR_SET_NAME, "runtimed-launch");
    jail_prefer();
    /* What a side process leaves behind when it is killed comes to us to be reaped. */
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    /* About five descriptors for each environment. */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    /* Inherited by all: no POSIX message queues, which a shell would keep from one environment to the next. */
    const struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_MSGQUEUE, &none) < 0)
        return -errno;
    /* Mounts of ours stay ours and go with us; what the host unmounts goes here too. */
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0) {
        say("cannot make a mount namespace: %s", strerror(errno));
        return -errno;
    }
    return 0;
}

/* What environments hold of inotify is counted once more for the host's user that made their zygote's user namespace, for all
 * of them together: with the kernel's 128, sixteen that take their eight (spawn_enter.c) leave the others none. Enough for
 * 8,192 environments a zygote. It is a number of the whole host: raised, never lowered, also not at the end. */
#define INOTIFY_FILE "/proc/sys/fs/inotify/max_user_instances"
#define INOTIFY_INSTANCES 65536

static void raise_inotify(const struct server *server) {
    char now[32], wanted[32];

    if (read_file_at(AT_FDCWD, INOTIFY_FILE, now, sizeof(now)) <= 0 || strtol(now, NULL, 10) >= INOTIFY_INSTANCES)
        return;
    now[strcspn(now, "\n")] = '\0';
    snprintf(wanted, sizeof(wanted), "%d", INOTIFY_INSTANCES);
    if (write_file_at(AT_FDCWD, INOTIFY_FILE, wanted) < 0)
        say("fs.inotify.max_user_instances is %s: some functions may leave others none; raise it: sysctl -w "
            "fs.inotify.max_user_instances=%s",
            now, wanted);
    else
        mention(server, "raised fs.inotify.max_user_instances from %s to %s", now, wanted);
}

/* What each loop of the dispatcher weighs, in cores' worth of environments. All calls wait for it, and what it does for one is
 * short. Weighing as much as one environment, it came last of many at work, who then were all cold: beside other work 64
 * connections had half as many answers or fewer. */
#define DISPATCH_CORES 8u

static unsigned dispatch_weight(const struct server *server) {
    const unsigned decides_itself = (unsigned)MAX(sysconf(_SC_NPROCESSORS_ONLN) / 2, 1l);
    return DISPATCH_CORES * (server->boot.dispatch_loops != 0 ? server->boot.dispatch_loops : decides_itself);
}

static int prepare_cgroups(struct server *server) {
    int r = cgroup_tree_open(&server->cgroups, server->boot.cgroup_name);
    if (r < 0) {
        say("cannot use control groups: %s", strerror(-r));
        return r;
    }
    r = cgroup_tree_sweep(&server->cgroups);
    if (r > 0)
        mention(server, "removed %d control groups that an earlier run left", r);
    r = cgroup_tree_delegate(&server->cgroups, boot_forkers_group(&server->boot));
    if (r == 0)
        r = cgroup_make(&server->cgroups, "zygotes", &server->zygote_cgroup);
    if (r == 0)
        r = cgroup_make_weighed(&server->cgroups, "dispatch", dispatch_weight(server), &server->dispatch_cgroup);
    if (r < 0)
        say("cannot make a control group: %s", strerror(-r));
    return r;
}

static void drain_zygotes(void *owner) {
    zygotes_drain(owner);
}

static void stop(void *owner) {
    supervise_stop(owner);
}

static void reload(void *owner) {
    supervise_upgrade(owner);
}

static void end_of_turn(void *owner) {
    control_acknowledge(owner);
}

static int start(struct server *server) {
    int r = loop_init(&server->loop);
    if (r == 0)
        r = plans_init(&server->plans);
    if (r == 0)
        r = launches_init(server);
    if (r == 0)
        r = recycle_init(server);
    if (r == 0)
        r = spares_init(server);
    if (r == 0)
        r = tasks_init(server);
    if (r == 0)
        r = zygotes_init(server);
    server->reaper.before = drain_zygotes;
    server->reaper.stop = stop;
    server->reaper.reload = reload;
    server->reaper.owner = server;
    if (r == 0)
        r = reaper_start(&server->reaper, &server->loop);
    if (r == 0)
        r = seats_start(server);
    if (r == 0)
        r = pools_start(server);
    if (r == 0)
        r = supervise_start(server);
    if (r < 0)
        say("cannot start: %s", strerror(-r));
    return r;
}

static void remove_cgroups(struct server *server) {
    cgroup_close(&server->zygote_cgroup);
    cgroup_close(&server->dispatch_cgroup);
    (void)cgroup_tree_sweep(&server->cgroups);
    int r = cgroup_tree_remove(&server->cgroups);
    if (r < 0)
        say("control groups are left behind: %s", strerror(-r));
    cgroup_tree_close(&server->cgroups);
}

int main(void) {
    struct server *server = calloc(1, sizeof(*server));
    char reason[256] = "";
    int r;

    if (server == NULL)
        return EXIT_FAILURE;
    if (boot_read(BOOT_DESCRIPTOR, &server->boot, reason, sizeof(reason)) < 0) {
        say("%s", reason);
        return EXIT_FAILURE;
    }
    if (prepare_process() < 0 || place_open(server) < 0 || prepare_cgroups(server) < 0)
        return EXIT_FAILURE;
    raise_inotify(server);
    r = start(server);
    if (r == 0)
        r = loop_run(&server->loop, end_of_turn, server);
    remove_cgroups(server);
    place_close(server);
    return r < 0 ? EXIT_FAILURE : server->exit_status;
}
