/* A dispatcher in this process, with the far ends of its two links: for fuzz_http.c and the stages of dispatch_stage.h. */
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "check.h"
#include "dispatch/dispatch.h"

/* Its logs are in a directory without a name: the writer holds it open, and what it writes goes when we do. */
static inline void dispatcher_open(struct dispatch *dispatch, int *ret_launcher, int *ret_control) {
    char directory[] = "/tmp/fuzz-dispatch-XXXXXX";
    int launcher[2], control[2];

    CHECK(mkdtemp(directory) != NULL);
    CHECK(socketpair_seqpacket(launcher, 3) == 0 && socketpair_seqpacket(control, 3) == 0);
    struct dispatch_options options = {.launcher = launcher[1],
        .listener = -1,
        .http = -1,
        .http_tcp = -1,
        .logs = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    CHECK(dispatch_open(dispatch, &options) == 0);
    rmdir(directory);
    *ret_launcher = launcher[0];
    *ret_control = control[0];
    control_adopt(&dispatch->control, control[1], 1);
}

/* The function that all call: f, with little of everything. */
static inline struct wire_put_target dispatcher_target(void) {
    return (struct wire_put_target){
        .function_name = {(const uint8_t *)"f", 1},
        .function_version = {(const uint8_t *)"1", 1},
        .memory_mb = 128,
        .timeout_ms = 60000,
        .init_timeout_ms = 60000,
        .max_environments = 3,
        .max_concurrency = 4,
        .max_waiting = 2,
        .keep_alive_ms = 60000,
    };
}

static inline struct wire_put_route dispatcher_route(void) {
    return (struct wire_put_route){
        .name = {(const uint8_t *)"f", 1}, .qualifier = {(const uint8_t *)"$LATEST", 7}, .target = 1};
}

/* It has heard its tables. */
static inline void dispatcher_synced(struct dispatch *dispatch) {
    for (unsigned i = 0; i < 4; i++)
        CHECK(dispatch_turn(dispatch, 0) == 0);
    CHECK(dispatch->synced);
}
