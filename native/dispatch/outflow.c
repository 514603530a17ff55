/* Bytes on their way; see the header. */
#include "dispatch/outflow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "dispatch/request.h"

#define ROOM_MIN 4096u

int outflow_reserve(struct outflow *outflow, size_t size, uint8_t **ret_at) {
    size_t room;
    uint8_t *data;

    if (outflow->at > 0 && outflow->at + outflow->size + size > outflow->room) {
        memmove(outflow->data, outflow->data + outflow->at, outflow->size);
        outflow->at = 0;
    }
    if (outflow->size + size > outflow->room) {
        room = MAX(MAX(outflow->room * 2, outflow->size + size), (size_t)ROOM_MIN);
        if (!budget_take(outflow->budget, room - outflow->room))
            return -ENOBUFS;
        data = realloc(outflow->data, room);
        if (data == NULL) {
            budget_give_back(outflow->budget, room - outflow->room);
            return -ENOMEM;
        }
        outflow->data = data;
        outflow->room = room;
    }
    *ret_at = outflow->data + outflow->at + outflow->size;
    return 0;
}

void outflow_grow(struct outflow *outflow, size_t size) {
    outflow->size += size;
}

int outflow_add(struct outflow *outflow, const void *data, size_t size) {
    uint8_t *at;
    int r;

    if (size == 0)
        return 0;
    r = outflow_reserve(outflow, size, &at);
    if (r < 0)
        return r;
    memcpy(at, data, size);
    outflow_grow(outflow, size);
    return 0;
}

void outflow_taken(struct outflow *outflow, size_t size) {
    outflow->at += size;
    outflow->size -= size;
    if (outflow->size == 0)
        outflow_done(outflow);
}

void outflow_done(struct outflow *outflow) {
    if (outflow->room > 0)
        budget_give_back(outflow->budget, outflow->room);
    free(outflow->data);
    outflow->data = NULL;
    outflow->at = outflow->size = outflow->room = 0;
}
