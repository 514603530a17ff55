/* AWS Signature Version 4 of requests, checked: what boto3 and the AWS CLI put into Authorization. Pure, but for the
 * hashing, which is libcrypto's.
 *
 *   canonical request   method, path, query, signed headers, their names, hash of the body
 *   string to sign      "AWS4-HMAC-SHA256", time, scope (date/region/service/aws4_request), hash of the former
 *   signature           HMAC with a key derived from the secret for date, region and service
 *
 * The node never holds secrets here: the control plane derives the keys for some days and pushes them. All but the
 * body's hash is taken from the head when it is read; the body is hashed as it comes.
 *
 * Checked against botocore's signer in the tests. Rules after the service's documentation of the process; paths are
 * encoded twice, as for every service but S3. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatch/h1.h"
#include "protocol/wire.h"

#define SIGV4_KEY_ID_MAX 32u
#define SIGV4_SIGNED_MAX 64u /* headers */
#define SIGV4_PARAMETERS_MAX 32u
#define SIGV4_SKEW_S 300 /* how far the caller's clock may be off */

/* An Authorization header, taken apart; slices of it. */
struct sigv4_claim {
    struct wire_slice key_id, date, region, service; /* of Credential */
    struct wire_slice signed_names;                  /* SignedHeaders: a;b;c */
    struct wire_slice scope;                         /* date/region/service/aws4_request */
    uint8_t signature[32];
    char time[17]; /* 20260102T030405Z, of X-Amz-Date */
};

enum sigv4_error {
    SIGV4_GOOD,
    SIGV4_NOT,        /* another scheme */
    SIGV4_INCOMPLETE, /* a part is missing or cannot be read */
    SIGV4_EXPIRED,    /* signed too long ago, or in the future */
    SIGV4_HEADERS,    /* signed headers: not in order, not there, or without host and the date */
    SIGV4_QUERY,      /* too many parameters, or a wrong escape */
};

/* Reads the header. now_s: seconds since the epoch. */
enum sigv4_error sigv4_read(
    const struct h1_head *head, const uint8_t *data, int64_t now_s, struct sigv4_claim *ret_claim);

/* A request that is being checked. */
struct sigv4;
#define SIGV4_SIZE 512u

/* Takes in all of the head. `memory`: SIGV4_SIZE bytes, aligned as malloc does. key: derived for the claim's scope. */
enum sigv4_error sigv4_begin(struct sigv4 *memory, const struct h1_head *head, const uint8_t *data,
    const struct sigv4_claim *claim, const uint8_t key[32]);
void sigv4_body(struct sigv4 *sigv4, const uint8_t *data, size_t size);
/* Is it the signature? In constant time. */
bool sigv4_finish(struct sigv4 *sigv4);

void sha256(const uint8_t *data, size_t size, uint8_t ret_digest[32]);
/* In constant time. */
bool digest_equal(const uint8_t a[32], const uint8_t b[32]);
