/* What loops share: pools of tokens against a count of them, alone and from several threads at once; mailboxes: order,
 * nothing lost, nobody left asleep. */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/mailbox.h"
#include "dispatch/pool.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define LOOPS 4u

static unsigned draw(unsigned *seed) {
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 16;
}

/* One after the other: a token is refused exactly when all are in use, wherever they lie, and whatever the capacity was
 * changed to meanwhile. */
static void test_pool_is_exact(void) {
    for (unsigned seed = 1; seed < 200; seed++) {
        unsigned state = seed, loops = 1 + seed % LOOPS;
        int64_t capacity = seed % 13 == 0 ? 1000 : seed % 7, in_use = 0;
        struct pool pool;
        CHECK(pool_init(&pool, loops, capacity) == 0);
        for (unsigned step = 0; step < 2000; step++) {
            unsigned loop = draw(&state) % loops, what = draw(&state) % 100;
            if (what < 55) {
                bool taken = pool_take(&pool, loop);
                CHECK(taken == (in_use < capacity));
                in_use += taken;
            } else if (what < 98 && in_use > 0) {
                pool_give(&pool, loop);
                in_use--;
            } else if (what >= 98) {
                capacity = (int64_t)(draw(&state) % 300);
                pool_resize(&pool, capacity);
            }
            CHECK(pool_in_use(&pool) == in_use);
        }
        pool_done(&pool);
    }
}

struct taker {
    struct pool *pool;
    unsigned loop;
    _Atomic int64_t *in_use;
    int64_t capacity;
};

static void *take_and_give(void *argument) {
    struct taker *taker = argument;
    unsigned held = 0, state = taker->loop + 1;
    for (unsigned i = 0; i < 200000; i++) {
        if (draw(&state) % 2 == 0 && pool_take(taker->pool, taker->loop)) {
            CHECK(atomic_fetch_add(taker->in_use, 1) < taker->capacity);
            held++;
        } else if (held > 0) {
            atomic_fetch_sub(taker->in_use, 1);
            pool_give(taker->pool, taker->loop);
            held--;
        }
    }
    for (; held > 0; held--) {
        atomic_fetch_sub(taker->in_use, 1);
        pool_give(taker->pool, taker->loop);
    }
    return NULL;
}

static void test_pool_from_all_sides(int64_t capacity) {
    struct pool pool;
    struct taker takers[LOOPS];
    pthread_t threads[LOOPS];
    _Atomic int64_t in_use = 0;

    CHECK(pool_init(&pool, LOOPS, capacity) == 0);
    for (unsigned i = 0; i < LOOPS; i++) {
        takers[i] = (struct taker){.pool = &pool, .loop = i, .in_use = &in_use, .capacity = capacity};
        CHECK(pthread_create(&threads[i], NULL, take_and_give, &takers[i]) == 0);
    }
    for (unsigned i = 0; i < LOOPS; i++)
        pthread_join(threads[i], NULL);
    CHECK(in_use == 0 && pool_in_use(&pool) == 0);
    /* None was lost: any one loop finds all of them. */
    for (int64_t i = 0; i < capacity; i++)
        CHECK(pool_take(&pool, 3));
    CHECK(!pool_take(&pool, 3) && !pool_take(&pool, 0));
    pool_done(&pool);
}

/* ---- mail ------------------------------------------------------------------------------------------------------ */

#define LETTERS 100000u

struct letter {
    struct mail mail;
    unsigned sender, number;
};

struct sender {
    struct mailbox *box;
    unsigned number;
    struct letter *letters;
};

static void *post(void *argument) {
    struct sender *sender = argument;
    for (unsigned i = 0; i < LETTERS; i++) {
        struct letter *letter = &sender->letters[i];
        *letter = (struct letter){.sender = sender->number, .number = i};
        (void)mailbox_post(sender->box, &letter->mail);
    }
    return NULL;
}

/* Sleeps whenever there is nothing, by the eventfd alone, edge-triggered as the loop does. */
static void test_mail_comes_in_order(void) {
    struct loop loop;
    struct mailbox box;
    struct sender senders[3];
    pthread_t threads[3];
    unsigned next[3] = {0}, left = 3 * LETTERS;

    CHECK(loop_open(&loop) == 0 && mailbox_open(&box) == 0);
    CHECK(loop_add(&loop, &box.watch, EPOLLIN | EPOLLET) == 0);
    for (unsigned i = 0; i < 3; i++) {
        senders[i] = (struct sender){.box = &box, .number = i, .letters = malloc(LETTERS * sizeof(struct letter))};
        CHECK(senders[i].letters != NULL);
        CHECK(pthread_create(&threads[i], NULL, post, &senders[i]) == 0);
    }
    while (left > 0) {
        struct epoll_event event;
        struct mail *mail;
        CHECK(epoll_wait(loop.epoll, &event, 1, 60000) == 1); /* nobody is left asleep */
        while ((mail = mailbox_take(&box)) != NULL) {
            const struct letter *letter = (const void *)mail;
            CHECK(letter->number == next[letter->sender]);
            next[letter->sender]++;
            left--;
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        free(senders[i].letters);
    }
    CHECK(mailbox_take(&box) == NULL);
    mailbox_close(&box);
    loop_close(&loop);
}

static void count(struct mail *mail, void *argument) {
    (void)mail;
    ++*(unsigned *)argument;
}

/* Every interleaving of posts and takes to a depth: first in, first out, and looking finds what is left. */
static void test_every_order(void) {
    for (unsigned plan = 0; plan < 1u << 12; plan++) {
        struct mail letters[12] = {0};
        unsigned posted = 0, taken = 0, seen = 0;
        struct mailbox box;
        memset(&box, 0, sizeof(box));
        box.watch.fd = -1;
        for (unsigned step = 0; step < 12; step++) {
            if (plan & (1u << step)) {
                CHECK(mailbox_post(&box, &letters[posted++]) == (box.posted->next == NULL));
            } else {
                struct mail *mail = mailbox_take(&box);
                CHECK(mail == (taken < posted ? &letters[taken] : NULL));
                taken += mail != NULL;
            }
        }
        mailbox_look(&box, count, &seen);
        CHECK(seen == posted - taken);
    }
}

int main(void) {
    test_pool_is_exact();
    test_pool_from_all_sides(1);
    test_pool_from_all_sides(9);
    test_pool_from_all_sides(5000);
    test_every_order();
    test_mail_comes_in_order();
    return 0;
}
