/* Loops, their threads and what they have in common; see the header. */
#include "dispatch/loops.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/dispatch.h"
#include "dispatch/levels.h"
#include "dispatch/travel.h"

static void on_reaper(struct timer *timer, uint64_t now);

int loops_new(struct loops **ret_loops, unsigned n, uint64_t payload_bytes, uint32_t concurrency) {
    struct loops *loops = calloc(1, sizeof(*loops));

    if (loops == NULL)
        return -ENOMEM;
    loops->n = n;
    loops->budget.limit = payload_bytes;
    loops->budget.left = payload_bytes;
    loops->stream_limits = stream_limits(0, 0, 0);
    loops->stall_us = HTTP_STALL_US;
    loops->ration = RATION_RATE;
    loops->room.most_idle = UINT32_MAX;
    bucket_init(&loops->log_bucket, LOG_NODE_RATE, clock_monotonic_us());
    if (account_init(&loops->account, n, concurrency) < 0) {
        free(loops);
        return -ENOMEM;
    }
    timer_init(&loops->reaper, on_reaper);
    pthread_mutex_init(&loops->lock, NULL);
    pthread_cond_init(&loops->changed, NULL);
    *ret_loops = loops;
    return 0;
}

void loops_free(struct loops *loops) {
    account_done(&loops->account);
    table_done(&loops->functions);
    table_done(&loops->targets);
    table_done(&loops->owners);
    pthread_mutex_destroy(&loops->lock);
    pthread_cond_destroy(&loops->changed);
    free(loops);
}

/* ---- threads --------------------------------------------------------------------------------------------------- */

static void *run(void *argument) {
    struct dispatch *dispatch = argument;
    struct loops *loops = dispatch->loops;
    char name[16];
    int r;

    snprintf(name, sizeof(name), "loop-%u", dispatch->number);
    pthread_setname_np(pthread_self(), name);
    /* A thread that could not be confined must not go on. */
    if (loops->confine != NULL && loops->confine() < 0)
        abort();
    pthread_barrier_wait(&loops->confined);
    do
        r = dispatch_turn(dispatch, LOOPS_PATIENCE_US); /* mail and its own timers wake it */
    while (r == 0);
    if (r < 0) {
        /* As of the first loop: the process ends, and is started again. */
        fprintf(stderr, "runtimed-dispatch: %s: %s\n", name, strerror(-r));
        _exit(EXIT_FAILURE);
    }
    return NULL;
}

int loops_start(struct loops *loops, int (*confine)(void)) {
    sigset_t all, before;
    int r = 0;

    if (loops->n == 1)
        return 0;
    loops->confine = confine;
    pthread_barrier_init(&loops->confined, NULL, loops->n);
    /* Signals are the first loop's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (unsigned i = 1; i < loops->n && r == 0; i++) {
        r = -pthread_create(&loops->threads[i], NULL, run, loops->each[i]);
        loops->n_threads += r == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0) { /* those that are there wait at the barrier: the process leaves */
        fprintf(stderr,
            "runtimed-dispatch: loop %u of %u has no thread: %s; allow more memory or processes, or fewer loops "
            "(dispatch.loops)\n",
            loops->n_threads + 1, loops->n, strerror(-r));
        return r;
    }
    pthread_barrier_wait(&loops->confined);
    return 0;
}

static void nothing(struct dispatch *dispatch, struct mail *mail) {
    (void)dispatch;
    (void)mail;
}

void loops_join(struct loops *loops) {
    struct mail last[LOOPS_MAX];

    atomic_store(&loops->leave, true);
    for (unsigned i = 1; i <= loops->n_threads; i++) {
        last[i] = (struct mail){.deliver = nothing};
        loops_post(loops, i, &last[i]);
    }
    for (unsigned i = 1; i <= loops->n_threads; i++)
        pthread_join(loops->threads[i], NULL);
    loops->n_threads = 0;
    /* What nobody will read any more. */
    for (unsigned i = 0; loops->n > 1 && i < loops->n; i++)
        if (loops->each[i] != NULL)
            travel_discard(loops->each[i]);
}

/* ---- mail ------------------------------------------------------------------------------------------------------ */

void loops_post(struct loops *loops, unsigned number, struct mail *mail) {
    (void)mailbox_post(&loops->each[number]->mailbox, mail);
}

void loops_read_mail(struct dispatch *dispatch) {
    struct mail *mail;
    while ((mail = mailbox_take(&dispatch->mailbox)) != NULL)
        mail->deliver(dispatch, mail);
}

static void on_mail(struct watch *watch, uint32_t events) {
    (void)events;
    loops_read_mail(list_entry(list_entry(watch, struct mailbox, watch), struct dispatch, mailbox));
}

int loops_open_mailbox(struct dispatch *dispatch) {
    int r;
    dispatch->mailbox.watch.fd = -1;
    if (dispatch->loops->n == 1)
        return 0;
    r = mailbox_open(&dispatch->mailbox);
    dispatch->mailbox.watch.ready = on_mail;
    return r < 0 ? r : loop_add(&dispatch->loop, &dispatch->mailbox.watch, EPOLLIN | EPOLLET);
}

/* ---- standing still -------------------------------------------------------------------------------------------- */

static void stand_still(struct dispatch *dispatch, struct mail *mail) {
    struct loops *loops = dispatch->loops;
    uint32_t round;
    (void)mail;

    pthread_mutex_lock(&loops->lock);
    round = loops->rounds;
    loops->still++;
    pthread_cond_broadcast(&loops->changed);
    while (loops->rounds == round)
        pthread_cond_wait(&loops->changed, &loops->lock);
    pthread_mutex_unlock(&loops->lock);
}

void loops_stop(struct loops *loops) {
    if (loops->n_threads == 0 || loops->depth++ > 0)
        return;
    for (unsigned i = 1; i < loops->n; i++) {
        loops->each[i]->stop.deliver = stand_still;
        loops_post(loops, i, &loops->each[i]->stop);
    }
    pthread_mutex_lock(&loops->lock);
    while (loops->still < loops->n - 1)
        pthread_cond_wait(&loops->changed, &loops->lock);
    pthread_mutex_unlock(&loops->lock);
    for (unsigned i = 1; i < loops->n; i++)
        loops->each[i]->loop.now_us = clock_monotonic_us(); /* it may have slept for long */
}

void loops_go(struct loops *loops) {
    if (loops->n_threads == 0 || --loops->depth > 0)
        return;
    pthread_mutex_lock(&loops->lock);
    loops->still = 0;
    loops->rounds++;
    pthread_cond_broadcast(&loops->changed);
    pthread_mutex_unlock(&loops->lock);
}

void loops_lock(struct loops *loops) {
    if (loops->n > 1)
        pthread_mutex_lock(&loops->lock);
}

void loops_unlock(struct loops *loops) {
    if (loops->n > 1)
        pthread_mutex_unlock(&loops->lock);
}

/* ---- environments and the launcher ----------------------------------------------------------------------------- */

unsigned loops_owner(struct loops *loops, uint64_t environment) {
    unsigned home = (unsigned)(environment % LOOPS_MAX);
    const struct dispatch *dispatch;

    if (loops->n == 1)
        return 0;
    pthread_mutex_lock(&loops->lock);
    dispatch = table_get(&loops->owners, environment);
    pthread_mutex_unlock(&loops->lock);
    return dispatch != NULL ? dispatch->number : home < loops->n ? home : 0;
}

/* Nobody sees the new owner before the environment is in its mail: what is passed on to it comes behind. */
int loops_move(struct loops *loops, uint64_t environment, unsigned to, struct mail *mail) {
    int r;

    pthread_mutex_lock(&loops->lock);
    r = table_put(&loops->owners, environment, loops->each[to]);
    if (r >= 0)
        loops_post(loops, to, mail);
    pthread_mutex_unlock(&loops->lock);
    return r;
}

void loops_disown(struct loops *loops, uint64_t environment) {
    pthread_mutex_lock(&loops->lock);
    if (table_get(&loops->owners, environment) != NULL)
        table_remove(&loops->owners, environment);
    pthread_mutex_unlock(&loops->lock);
}

static void unpack(struct dispatch *dispatch, struct mail *mail) {
    struct parcel *parcel = list_entry(mail, struct parcel, mail);
    struct packet packet = {.data = parcel->data, .size = parcel->size, .n_fds = parcel->n_fds};

    memcpy(packet.fds, parcel->fds, sizeof(packet.fds));
    launcher_packet(&dispatch->launcher, &packet);
    packet_close_fds(&packet);
    free(parcel);
}

static void burn(struct mail *mail) {
    struct parcel *parcel = list_entry(mail, struct parcel, mail);
    for (unsigned i = 0; i < parcel->n_fds; i++)
        close(parcel->fds[i]);
    free(parcel);
}

void loops_pass_on(struct loops *loops, unsigned number, struct packet *packet) {
    struct parcel *parcel = malloc(sizeof(*parcel) + packet->size);
    if (parcel == NULL)
        abort(); /* an environment would never be heard of again */
    parcel->mail = (struct mail){.deliver = unpack, .discard = burn};
    parcel->size = (uint32_t)packet->size;
    parcel->n_fds = packet->n_fds;
    memcpy(parcel->fds, packet->fds, sizeof(parcel->fds));
    memcpy(parcel->data, packet->data, packet->size);
    packet->n_fds = 0;
    loops_post(loops, number, &parcel->mail);
}

/* ---- the end, room --------------------------------------------------------------------------------- */

static void count_mail(struct mail *mail, void *argument) {
    (void)mail;
    ++*(size_t *)argument;
}

/* What each says of itself may be old, and something may be on its way between them: looked at once more, still. */
bool loops_over(struct loops *loops) {
    bool over = true;
    size_t mail = 0;

    for (unsigned i = 1; i < loops->n; i++)
        if (!atomic_load(&loops->each[i]->is_over))
            return false;
    if (loops->n == 1)
        return true;
    loops_stop(loops);
    for (unsigned i = 0; i < loops->n; i++) {
        over = over && dispatch_is_over(loops->each[i]);
        mailbox_look(&loops->each[i]->mailbox, count_mail, &mail);
    }
    loops_go(loops);
    if (over && mail > 0)
        levels_wake(loops->each[0]); /* looks again when it was read */
    return over && mail == 0;
}

static void look_at_room(struct dispatch *dispatch, struct mail *mail) {
    (void)mail;
    atomic_store(&dispatch->room_told, false);
    room_changed(dispatch);
}

void loops_tell_room(struct dispatch *dispatch) {
    struct loops *loops = dispatch->loops;
    for (unsigned i = 0; i < loops->n; i++) {
        struct dispatch *other = loops->each[i];
        if (other == dispatch || atomic_exchange(&other->room_told, true))
            continue;
        other->room_mail = (struct mail){.deliver = look_at_room};
        loops_post(loops, i, &other->room_mail);
    }
}

static bool is_done(struct loops *loops, uint64_t id) {
    for (unsigned i = 0; i < loops->n; i++) {
        const struct target *target = table_get(&loops->each[i]->targets.by_id, id);
        if (target != NULL && (!target->retired || target->in_flight > 0 || !list_empty(&target->environments)))
            return false;
        if (travel_is_expected(loops->each[i], id))
            return false;
    }
    return true;
}

static void on_reaper(struct timer *timer, uint64_t now) {
    struct loops *loops = list_entry(timer, struct loops, reaper);
    (void)now;
    loops_stop(loops);
    loops_reap(loops);
    loops_go(loops);
}

void loops_reap(struct loops *loops) {
    struct dispatch *first = loops->each[0];
    struct target *target;
    size_t at = 0;

    if (loops->n == 1)
        return;
    while (first->targets.n_retired > 0 && (target = table_next(&first->targets.by_id, &at)) != NULL) {
        uint64_t id = target->id;
        if (!target->retired || !is_done(loops, id))
            continue;
        for (unsigned i = 0; i < loops->n; i++)
            targets_forget(loops->each[i], id);
        at = 0; /* removal may have moved others in front of this place */
    }
    if (first->targets.n_retired > 0 && loops->reaper.deadline_us == 0)
        timer_set(&first->loop.timers, &loops->reaper, clock_monotonic_us() + LOOPS_REAP_US);
}
