/* The imager; see the header. The upper half runs in the side process, the lower in the launcher. */
#include "imager.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "jail/image.h"

/* How long what the imager had no room for waits for the next attempt. */
#define AGAIN_US 20000

enum imager_kind { IMAGER_MAKE, IMAGER_DROP };

struct imager_request {
    enum imager_kind kind;
    uint32_t size_mb;
};

struct imager_answer {
    uint32_t size_mb;
    int error;
    char step[32];
};

/* ---- the side process ---------------------------------------------------------------------------------------- */

static void make(struct image_pool *pool, int pool_error, int socket, uint32_t size_mb) {
    struct imager_answer answer = {.size_mb = size_mb, .error = pool_error};
    struct image image = {.tree = -1};

    if (answer.error == 0)
        answer.error = image_make(pool, size_mb, 0, 0, &image);
    snprintf(answer.step, sizeof(answer.step), "%s", pool_error != 0 ? "image pool" : "image");
    (void)packet_send(socket, &answer, sizeof(answer), &image.tree, answer.error == 0 ? 1 : 0);
    if (answer.error == 0)
        image_close(&image);
}

/* The dropper's whole life: nobody waits for it, however long an unmount takes. Ends with the pipe. */
static void *drop_run(void *argument) {
    const int pipe = *(const int *)argument;
    struct image image;

    while (read(pipe, &image.tree, sizeof(image.tree)) == sizeof(image.tree))
        image_discard(&image);
    return NULL;
}

static void drop(int pipe, struct packet *packet) {
    for (unsigned i = 0; i < packet->n_fds; i++) {
        struct image image = {.tree = packet->fds[i]};
        packet->fds[i] = -1;
        if (pipe < 0 || write(pipe, &image.tree, sizeof(image.tree)) != sizeof(image.tree))
            image_discard(&image);
    }
}

static void serve(int socket, int pipe, const char *directory) {
    uint8_t buffer[SIDE_MESSAGE_MAX];
    struct image_pool pool;
    int pool_error = image_pool_open(directory, &pool);

    for (;;) {
        struct packet packet = {.data = buffer, .capacity = sizeof(buffer)};
        struct imager_request request;
        if (packet_receive(socket, &packet, 0) <= 0)
            return;
        if (packet.size == sizeof(request)) {
            memcpy(&request, packet.data, sizeof(request));
            if (request.kind == IMAGER_MAKE)
                make(&pool, pool_error, socket, request.size_mb);
            else
                drop(pipe, &packet);
        }
        packet_close_fds(&packet);
    }
}

static void imager_run(int socket, void *argument) {
    int ends[2] = {-1, -1};
    pthread_t dropper;
    bool threaded = pipe2(ends, O_CLOEXEC) == 0 && pthread_create(&dropper, NULL, drop_run, &ends[0]) == 0;

    serve(socket, threaded ? ends[1] : -1, argument);
    if (threaded && close(ends[1]) == 0)
        (void)pthread_join(dropper, NULL);
}

/* ---- the launcher ---------------------------------------------------------------------------------------------- */

static void message(struct side *side, struct packet *packet) {
    struct imager *imager = (struct imager *)(void *)((char *)side - offsetof(struct imager, side));
    struct imager_answer answer;

    if (packet->size != sizeof(answer))
        return;
    memcpy(&answer, packet->data, sizeof(answer));
    if (answer.error == 0 && packet->n_fds != 1)
        answer.error = -EMFILE;
    imager->made(
        imager->owner, answer.size_mb, answer.error == 0 ? steal_fd(&packet->fds[0]) : answer.error, answer.step);
}

int imager_request(struct imager *imager, uint32_t size_mb) {
    struct imager_request request = {.kind = IMAGER_MAKE, .size_mb = size_mb};
    return side_send(&imager->side, &request, sizeof(request), NULL, 0);
}

/* What could not be sent is ours until it can: the last close is never. */
static int send_drop(struct imager *imager, int tree) {
    const struct imager_request request = {.kind = IMAGER_DROP};
    int r = side_send(&imager->side, &request, sizeof(request), &tree, 1);
    if (r == 0)
        close(tree);
    return r;
}

static void send_left(void *owner) {
    struct imager *imager = owner;

    while (imager->n_left > 0 && send_drop(imager, imager->left[imager->n_left - 1]) == 0)
        imager->n_left--;
    if (imager->n_left > 0)
        loop_timer(imager->side.loop, &imager->again, AGAIN_US, send_left, imager);
}

static bool keep(struct imager *imager, int tree) {
    if (imager->n_left == imager->room) {
        const unsigned room = MAX(imager->room * 2, 64u);
        int *grown = reallocarray(imager->left, room, sizeof(*grown));
        if (grown == NULL)
            return false;
        imager->left = grown;
        imager->room = room;
    }
    imager->left[imager->n_left++] = tree;
    if (!loop_timer_on(&imager->again))
        loop_timer(imager->side.loop, &imager->again, AGAIN_US, send_left, imager);
    return true;
}

void imager_drop(struct imager *imager, int tree) {
    struct image image = {.tree = tree};
    if (send_drop(imager, tree) < 0 && !keep(imager, tree))
        image_discard(&image);
}

int imager_start(struct imager *imager, struct loop *loop, struct reaper *reaper, const char *directory) {
    imager->side.message = message;
    return side_start(&imager->side, loop, reaper, "runtimed-imager", imager_run, (void *)directory, NULL, 0);
}

void imager_stop(struct imager *imager) {
    loop_timer_off(&imager->again);
    for (; imager->n_left > 0; imager->n_left--)
        if (send_drop(imager, imager->left[imager->n_left - 1]) < 0)
            image_discard(&(struct image){.tree = imager->left[imager->n_left - 1]});
    free(imager->left);
    imager->left = NULL;
    imager->room = 0;
    side_stop(&imager->side);
}
