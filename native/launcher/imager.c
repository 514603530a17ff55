/* The imager; see the header. The upper half runs in the side process, the lower in the launcher. */
#include "imager.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "jail/image.h"

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

static void imager_run(int socket, void *argument) {
    uint8_t buffer[SIDE_MESSAGE_MAX];
    struct image_pool pool;
    int pool_error = image_pool_open(argument, &pool);

    for (;;) {
        struct packet packet = {.data = buffer, .capacity = sizeof(buffer)};
        struct imager_request request;
        if (packet_receive(socket, &packet, 0) <= 0)
            return;
        if (packet.size == sizeof(request)) {
            memcpy(&request, packet.data, sizeof(request));
            if (request.kind == IMAGER_MAKE)
                make(&pool, pool_error, socket, request.size_mb);
        }
        packet_close_fds(&packet);
    }
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

int imager_start(struct imager *imager, struct loop *loop, struct reaper *reaper, const char *directory) {
    imager->side.message = message;
    return side_start(&imager->side, loop, reaper, "runtimed-imager", imager_run, (void *)directory, NULL, 0);
}

int imager_request(struct imager *imager, uint32_t size_mb) {
    struct imager_request request = {.kind = IMAGER_MAKE, .size_mb = size_mb};
    return side_send(&imager->side, &request, sizeof(request), NULL, 0);
}

void imager_drop(struct imager *imager, int tree) {
    struct imager_request request = {.kind = IMAGER_DROP};
    /* When it lags behind, the last close is ours. */
    (void)side_send(&imager->side, &request, sizeof(request), &tree, 1);
    close(tree);
}
