/* An environment's channel: the input is cut into packets (u16 length each), which arrive as a dispatcher would send them:
 * START, then INVOKEs with their CHUNKs. Every slice must lie within its packet, and no body may outgrow what was
 * announced. Packets too long for the input are taken as far as it goes. */
#include <stdlib.h>
#include <string.h>

#include "zygote/configuration.h"
#include "zygote/endpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *at, *end;
};

/* The next packet, in memory of exactly its size, so that the sanitizer sees each read beyond. */
static bool next_packet(struct input *input, struct endpoint *endpoint) {
    size_t size, left;
    free(endpoint->packet);
    endpoint->packet = NULL;
    if (input->end - input->at < 2)
        return false;
    size = (size_t)input->at[0] | (size_t)input->at[1] << 8;
    input->at += 2;
    left = (size_t)(input->end - input->at);
    endpoint->size = size < left ? size : left;
    endpoint->packet = malloc(endpoint->size > 0 ? endpoint->size : 1);
    if (endpoint->packet == NULL)
        abort();
    memcpy(endpoint->packet, input->at, endpoint->size);
    input->at += endpoint->size;
    return true;
}

static void check(const struct endpoint *endpoint, struct wire_slice slice) {
    if (slice.size > 0 &&
        (slice.data < endpoint->packet || slice.data + slice.size > endpoint->packet + endpoint->size))
        abort();
}

static void check_start(struct endpoint *endpoint) {
    struct configuration configuration;
    struct wire_start start;
    if (endpoint_take_start(endpoint, &start) < 0)
        return;
    check(endpoint, start.log_stream);
    check(endpoint, start.configuration);
    if (configuration_read(&start, &configuration) == 0) {
        if (configuration_variable(&configuration, "_HANDLER") != configuration.handler)
            abort();
        configuration_done(&configuration);
    }
}

/* False: the process would end here. */
static bool check_invocation(struct input *input, struct endpoint *endpoint) {
    struct wire_invoke invoke;
    uint32_t total, filled;
    uint8_t *body;
    bool good = true;

    if (endpoint_take_invoke(endpoint, &invoke) < 0)
        return false;
    check(endpoint, invoke.arn);
    check(endpoint, invoke.trace);
    check(endpoint, invoke.client_context);
    check(endpoint, invoke.cognito_identity);
    check(endpoint, invoke.tenant);
    check(endpoint, invoke.body);
    total = invoke.total;
    filled = invoke.body.size;
    body = malloc(total > 0 ? total : 1);
    if (body == NULL)
        abort();
    if (filled > 0)
        memcpy(body, invoke.body.data, filled);
    while (good && filled < total) {
        good = next_packet(input, endpoint) && endpoint_take_chunk(endpoint, body, total, &filled) == 0;
        if (filled > total)
            abort();
    }
    free(body);
    return good;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {.at = data, .end = data + size};
    struct endpoint endpoint = ENDPOINT_INIT;

    if (next_packet(&input, &endpoint))
        check_start(&endpoint);
    while (next_packet(&input, &endpoint) && check_invocation(&input, &endpoint))
        ;
    free(endpoint.packet);
    return 0;
}
