/* Who may call; see http.h. What is answered says what to do, and nothing that helps to guess a key. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dispatch/dispatch.h"
#include "dispatch/http.h"
#include "dispatch/sigv4.h"

#define BEARER "bearer "
#define SERVICE "lambda"
#define MISFIT                                                                                                         \
    "The signature does not fit the request: check the secret, the region and what is between you and this node."

static bool refuse(struct http_connection *connection, const char *code, const char *message) {
    count_one(&connection->caller.dispatch->counters.node->http_denied);
    http_refuse_request(connection, 403, code, message);
    return false;
}

static bool unknown(struct http_connection *connection) {
    return refuse(connection, "UnrecognizedClientException",
        "The key is not known to this node, or was revoked: `runtimectl keys list` shows those that are valid.");
}

static bool missing(struct http_connection *connection) {
    return refuse(connection, "MissingAuthenticationTokenException",
        "Callers need a key here: sign the request (AWS signature version 4), or send Authorization: Bearer TOKEN. "
        "`runtimectl keys create` makes one.");
}

static bool refuse_claim(struct http_connection *connection, enum sigv4_error error) {
    switch (error) {
    case SIGV4_EXPIRED:
        return refuse(connection, "InvalidSignatureException",
            "Signature expired or not yet valid: X-Amz-Date is more than five minutes from this node's clock.");
    case SIGV4_HEADERS:
        return refuse(connection, "IncompleteSignatureException",
            "SignedHeaders must name host, x-amz-date and only headers that are there, in alphabetical order.");
    case SIGV4_QUERY:
        return refuse(connection, "InvalidSignatureException", "The query cannot be read.");
    default:
        return refuse(connection, "IncompleteSignatureException",
            "Authorization needs Credential=KEY/DATE/REGION/lambda/aws4_request, SignedHeaders and Signature, and the "
            "request X-Amz-Date of the same day.");
    }
}

/* Of what all loops may keep together: connections may be on any of them. */
static bool claim_unproven(struct http_connection *connection, uint64_t body) {
    struct http *http = http_of(connection);
    _Atomic uint64_t *all = &connection->caller.dispatch->loops->unproven;

    if (atomic_fetch_add_explicit(all, body, memory_order_relaxed) + body > http->unproven_max) {
        atomic_fetch_sub_explicit(all, body, memory_order_relaxed);
        return false;
    }
    http->unproven += body;
    connection->unproven = (uint32_t)body;
    return true;
}

/* The body is taken on trust until it is there: within bounds. */
static bool begin_signature(struct http_connection *connection, const uint8_t *data, const struct sigv4_claim *claim,
    const uint8_t key[32], uint64_t body) {
    struct http *http = http_of(connection);
    enum sigv4_error error;

    if (body > http->unproven_max) {
        http_refuse_request(connection, 413, "RequestTooLargeException",
            "This node has not the memory to keep so long a body until its signature is checked. Send it without one: "
            "with Authorization: Bearer TOKEN, on the unix socket, or by `runtimectl deploy`.");
        return false;
    }
    if (!claim_unproven(connection, body)) {
        http_refuse_request(connection, 503, "ServiceException",
            "Too many requests wait for their bodies to prove their signatures; try again.");
        return false;
    }
    connection->sigv4 = malloc(SIGV4_SIZE);
    if (connection->sigv4 == NULL) {
        http_close(connection); /* which gives back what it claimed */
        return false;
    }
    error = sigv4_begin(connection->sigv4, &connection->head, data, claim, key);
    return error == SIGV4_GOOD || refuse_claim(connection, error);
}

static bool check_signature(struct http_connection *connection, const uint8_t *data, uint64_t body) {
    const struct dispatch *dispatch = connection->caller.dispatch;
    const struct principal *principal;
    const uint8_t *key;
    struct sigv4_claim claim;
    enum sigv4_error error = sigv4_read(&connection->head, data, (int64_t)(clock_real_us() / 1000000), &claim);

    if (error == SIGV4_NOT)
        return missing(connection);
    if (error != SIGV4_GOOD)
        return refuse_claim(connection, error);
    principal = principals_by_key_id(&dispatch->principals, claim.key_id);
    if (principal == NULL)
        return unknown(connection);
    /* The key was derived for this node's region: of another one the signature will not fit. */
    key = principal_signing_key(principal, claim.date);
    if (key == NULL || claim.service.size != sizeof(SERVICE) - 1 ||
        memcmp(claim.service.data, SERVICE, sizeof(SERVICE) - 1) != 0)
        return refuse(connection, "InvalidSignatureException",
            "The credential's scope is not one of today, this node's region, and the service lambda.");
    connection->principal = principal->id;
    return begin_signature(connection, data, &claim, key, body);
}

bool http_trust_head(struct http_connection *connection, const uint8_t *data, uint64_t body) {
    const struct dispatch *dispatch = connection->caller.dispatch;
    const struct principal *principal;
    struct wire_slice value, scheme;

    connection->principal = 0;
    if (connection->trust == HTTP_TRUSTED)
        return true;
    if (connection->trust == HTTP_REFUSED)
        return refuse(
            connection, "AccessDeniedException", "This socket is for root and the members of the node's group.");
    value = h1_find(&connection->head, data, "authorization");
    scheme = (struct wire_slice){value.data, MIN(value.size, sizeof(BEARER) - 1)};
    if (!h1_is(scheme, BEARER))
        return check_signature(connection, data, body);
    value = (struct wire_slice){value.data + scheme.size, value.size - scheme.size};
    principal = principals_by_token(&dispatch->principals, value);
    if (principal == NULL)
        return unknown(connection);
    connection->principal = principal->id;
    return true;
}

bool http_trust_body(struct http_connection *connection) {
    bool good = connection->sigv4 == NULL || sigv4_finish(connection->sigv4);
    http_trust_forget(connection);
    if (good)
        return true;
    count_one(&connection->caller.dispatch->counters.node->http_denied);
    if (connection->exchange != NULL)
        exchange_refuse(connection->exchange, 403, "InvalidSignatureException", NULL, MISFIT);
    else
        http_refuse_request(connection, 403, "InvalidSignatureException", MISFIT);
    return false;
}

void http_trust_forget(struct http_connection *connection) {
    http_of(connection)->unproven -= connection->unproven;
    atomic_fetch_sub_explicit(
        &connection->caller.dispatch->loops->unproven, connection->unproven, memory_order_relaxed);
    connection->unproven = 0;
    if (connection->sigv4 != NULL)
        explicit_bzero(connection->sigv4, SIGV4_SIZE);
    free(connection->sigv4);
    connection->sigv4 = NULL;
}
