/* Signatures; see the header. */
#define OPENSSL_SUPPRESS_DEPRECATED 1 /* the plain functions bring their own code and nothing else of libcrypto */
#include "dispatch/sigv4.h"

#include <openssl/sha.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "dispatch/random.h"
#include "dispatch/reference.h"

#define ALGORITHM "AWS4-HMAC-SHA256"
#define SCOPE_MAX 96u
#define SEGMENT_MAX (3u * H1_TARGET_MAX)

struct sigv4 {
    SHA256_CTX canonical, body;
    uint8_t key[32], signature[32];
    char time[17];
    char scope[SCOPE_MAX];
};
_Static_assert(sizeof(struct sigv4) <= SIGV4_SIZE, "SIGV4_SIZE");

/* ---- hashing ---------------------------------------------------------------------------------------------------- */

void sha256(const uint8_t *data, size_t size, uint8_t ret_digest[32]) {
    SHA256_CTX context;
    SHA256_Init(&context);
    SHA256_Update(&context, data, size);
    SHA256_Final(ret_digest, &context);
}

bool digest_equal(const uint8_t a[32], const uint8_t b[32]) {
    volatile uint8_t difference = 0;
    for (unsigned i = 0; i < 32; i++)
        difference |= a[i] ^ b[i];
    return difference == 0;
}

/* RFC 2104, of one message in parts. */
static void hmac(const uint8_t key[32], const struct wire_slice *parts, unsigned n, uint8_t ret_digest[32]) {
    uint8_t inner[64] = {0}, outer[64];
    SHA256_CTX context;

    memcpy(inner, key, 32);
    for (unsigned i = 0; i < 64; i++) {
        outer[i] = inner[i] ^ 0x5c;
        inner[i] ^= 0x36;
    }
    SHA256_Init(&context);
    SHA256_Update(&context, inner, sizeof(inner));
    for (unsigned i = 0; i < n; i++)
        SHA256_Update(&context, parts[i].data, parts[i].size);
    SHA256_Final(ret_digest, &context);
    SHA256_Init(&context);
    SHA256_Update(&context, outer, sizeof(outer));
    SHA256_Update(&context, ret_digest, 32);
    SHA256_Final(ret_digest, &context);
}

static struct wire_slice text(const char *text) {
    return (struct wire_slice){(const uint8_t *)text, (uint32_t)strlen(text)};
}

static void add(SHA256_CTX *context, struct wire_slice part) {
    SHA256_Update(context, part.data, part.size);
}

/* ---- the claim -------------------------------------------------------------------------------------------------- */

static bool begins(struct wire_slice in, const char *with) {
    size_t n = strlen(with);
    return in.size >= n && memcmp(in.data, with, n) == 0;
}

static struct wire_slice behind(struct wire_slice in, uint32_t n) {
    return (struct wire_slice){in.data + n, in.size - n};
}

/* Up to the byte, which is taken too; all when it is not there. */
static struct wire_slice take_until(struct wire_slice *rest, char until) {
    const uint8_t *end = rest->size > 0 ? memchr(rest->data, until, rest->size) : NULL;
    struct wire_slice taken = {rest->data, end != NULL ? (uint32_t)(end - rest->data) : rest->size};
    *rest = behind(*rest, taken.size + (end != NULL));
    return taken;
}

static bool read_credential(struct wire_slice value, struct sigv4_claim *claim) {
    struct wire_slice rest = value;
    claim->key_id = take_until(&rest, '/');
    claim->scope = rest;
    claim->date = take_until(&rest, '/');
    claim->region = take_until(&rest, '/');
    claim->service = take_until(&rest, '/');
    return claim->key_id.size > 0 && claim->key_id.size <= SIGV4_KEY_ID_MAX && claim->date.size == 8 &&
        claim->region.size > 0 && claim->service.size > 0 && claim->scope.size < SCOPE_MAX &&
        begins(rest, "aws4_request") && rest.size == 12;
}

static int hex(uint8_t c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_signature(struct wire_slice value, uint8_t ret_signature[32]) {
    for (uint32_t i = 0; i < 32 && value.size == 64; i++) {
        int high = hex(value.data[2 * i]), low = hex(value.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        ret_signature[i] = (uint8_t)(high << 4 | low);
    }
    return value.size == 64;
}

static bool read_parts(struct wire_slice rest, struct sigv4_claim *claim) {
    bool credential = false, names = false, signature = false;
    while (rest.size > 0) {
        struct wire_slice part = take_until(&rest, ',');
        while (part.size > 0 && (*part.data == ' ' || *part.data == '\t'))
            part = behind(part, 1);
        while (part.size > 0 && (part.data[part.size - 1] == ' ' || part.data[part.size - 1] == '\t'))
            part.size--;
        if (begins(part, "Credential=") && !credential) {
            if (!read_credential(behind(part, 11), claim))
                return false;
            credential = true;
        } else if (begins(part, "SignedHeaders=") && !names) {
            claim->signed_names = behind(part, 14);
            names = claim->signed_names.size > 0;
        } else if (begins(part, "Signature=") && !signature) {
            if (!read_signature(behind(part, 10), claim->signature))
                return false;
            signature = true;
        } else {
            return false;
        }
    }
    return credential && names && signature;
}

static int number(const char *at, int digits) {
    int value = 0;
    while (digits-- > 0)
        value = value * 10 + (*at++ - '0');
    return value;
}

/* 20260102T030405Z */
static bool read_time(struct wire_slice value, char ret_time[17], int64_t *ret_seconds) {
    struct tm tm = {0};
    if (value.size != 16)
        return false;
    for (unsigned i = 0; i < 16; i++)
        if (i == 8 ? value.data[i] != 'T' : i == 15 ? value.data[i] != 'Z' : value.data[i] < '0' || value.data[i] > '9')
            return false;
    memcpy(ret_time, value.data, 16);
    ret_time[16] = '\0';
    tm.tm_year = number(ret_time, 4) - 1900;
    tm.tm_mon = number(ret_time + 4, 2) - 1;
    tm.tm_mday = number(ret_time + 6, 2);
    tm.tm_hour = number(ret_time + 9, 2);
    tm.tm_min = number(ret_time + 11, 2);
    tm.tm_sec = number(ret_time + 13, 2);
    if (tm.tm_mon < 0 || tm.tm_mon > 11 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 || tm.tm_min > 59 ||
        tm.tm_sec > 60)
        return false;
    *ret_seconds = (int64_t)timegm(&tm);
    return true;
}

enum sigv4_error sigv4_read(
    const struct h1_head *head, const uint8_t *data, int64_t now_s, struct sigv4_claim *ret_claim) {
    struct wire_slice value = h1_find(head, data, "authorization");
    struct sigv4_claim claim = {.time = ""};
    int64_t seconds;

    if (!begins(value, ALGORITHM " "))
        return SIGV4_NOT;
    if (!read_parts(behind(value, sizeof(ALGORITHM)), &claim) ||
        !read_time(h1_find(head, data, "x-amz-date"), claim.time, &seconds) ||
        memcmp(claim.time, claim.date.data, 8) != 0)
        return SIGV4_INCOMPLETE;
    if (seconds < now_s - SIGV4_SKEW_S || seconds > now_s + SIGV4_SKEW_S)
        return SIGV4_EXPIRED;
    *ret_claim = claim;
    return SIGV4_GOOD;
}

/* ---- the canonical request --------------------------------------------------------------------------------------- */

static bool is_unreserved(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
        c == '_' || c == '~';
}

static void add_encoded(SHA256_CTX *context, struct wire_slice part, bool path) {
    static const char digits[] = "0123456789ABCDEF";
    for (uint32_t i = 0; i < part.size; i++) {
        uint8_t c = part.data[i];
        uint8_t escape[3] = {'%', (uint8_t)digits[c >> 4], (uint8_t)digits[c & 15]};
        bool plain = is_unreserved(c) || (path && c == '/');
        SHA256_Update(context, plain ? &c : escape, plain ? 1 : 3);
    }
}

struct parameter {
    struct wire_slice name, value; /* decoded */
};

static int compare(struct wire_slice a, struct wire_slice b) {
    int order = memcmp(a.data, b.data, MIN(a.size, b.size));
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

static bool decode(struct wire_slice *part, uint8_t **at) {
    int n = percent_decode(*part, *at);
    if (n < 0)
        return false;
    *part = (struct wire_slice){*at, (uint32_t)n};
    *at += n;
    return true;
}

/* Parameters in the order of their names and values, encoded anew. (The order of encoded texts, as the rule has it,
 * differs from this only for characters that need escapes, which names of ours have not.) */
static bool add_query(SHA256_CTX *context, struct wire_slice query) {
    struct parameter parameters[SIGV4_PARAMETERS_MAX];
    uint8_t decoded[H1_TARGET_MAX], *at = decoded;
    unsigned n = 0;

    while (query.size > 0) {
        struct wire_slice value = take_until(&query, '&'), name = take_until(&value, '=');
        unsigned place = n;
        if (name.size == 0 && value.size == 0)
            continue;
        if (n == SIGV4_PARAMETERS_MAX || !decode(&name, &at) || !decode(&value, &at))
            return false;
        for (; place > 0; place--) {
            int order = compare(name, parameters[place - 1].name);
            if (order > 0 || (order == 0 && compare(value, parameters[place - 1].value) >= 0))
                break;
            parameters[place] = parameters[place - 1];
        }
        parameters[place] = (struct parameter){name, value};
        n++;
    }
    for (unsigned i = 0; i < n; i++) {
        if (i > 0)
            SHA256_Update(context, "&", 1);
        add_encoded(context, parameters[i].name, false);
        SHA256_Update(context, "=", 1);
        add_encoded(context, parameters[i].value, false);
    }
    return true;
}

/* Runs of blanks become one space. */
static void add_value(SHA256_CTX *context, struct wire_slice value) {
    bool blank = false;
    for (uint32_t i = 0; i < value.size; i++) {
        bool now = value.data[i] == ' ' || value.data[i] == '\t';
        if (!now || !blank)
            SHA256_Update(context, now ? (const uint8_t *)" " : value.data + i, 1);
        blank = now;
    }
}

static bool is_named(struct wire_slice field, struct wire_slice name) {
    if (field.size != name.size)
        return false;
    for (uint32_t i = 0; i < name.size; i++) {
        uint8_t c = field.data[i];
        if ((c >= 'A' && c <= 'Z' ? c | 0x20 : c) != name.data[i])
            return false;
    }
    return true;
}

/* name:value,value LF; all fields of that name. False when there is none. */
static bool add_header(SHA256_CTX *context, const struct h1_head *head, const uint8_t *data, struct wire_slice name) {
    bool found = false;
    add(context, name);
    SHA256_Update(context, ":", 1);
    for (unsigned i = 0; i < head->n_fields; i++) {
        if (!is_named(h1_slice(data, head->fields[i].name), name))
            continue;
        if (found)
            SHA256_Update(context, ",", 1);
        add_value(context, h1_slice(data, head->fields[i].value));
        found = true;
    }
    SHA256_Update(context, "\n", 1);
    return found;
}

/* In their order, each once; host and x-amz-date among them, or anything could be replayed elsewhere and later. */
static bool add_headers(
    SHA256_CTX *context, const struct h1_head *head, const uint8_t *data, const struct sigv4_claim *claim) {
    struct wire_slice rest = claim->signed_names, before = {NULL, 0};
    bool host = false, date = false;

    for (unsigned n = 0; rest.size > 0; n++) {
        struct wire_slice name = take_until(&rest, ';');
        if (n == SIGV4_SIGNED_MAX || name.size == 0 || (n > 0 && compare(before, name) >= 0) ||
            !add_header(context, head, data, name))
            return false;
        host = host || compare(name, text("host")) == 0;
        date = date || compare(name, text("x-amz-date")) == 0;
        before = name;
    }
    return host && date;
}

enum sigv4_error sigv4_begin(struct sigv4 *memory, const struct h1_head *head, const uint8_t *data,
    const struct sigv4_claim *claim, const uint8_t key[32]) {
    struct wire_slice query = h1_slice(data, head->target), path = take_until(&query, '?');
    SHA256_CTX *context = &memory->canonical;

    SHA256_Init(context);
    SHA256_Init(&memory->body);
    add(context, h1_slice(data, head->method));
    SHA256_Update(context, "\n", 1);
    add_encoded(context, path, true);
    SHA256_Update(context, "\n", 1);
    if (!add_query(context, query))
        return SIGV4_QUERY;
    SHA256_Update(context, "\n", 1);
    if (!add_headers(context, head, data, claim))
        return SIGV4_HEADERS;
    SHA256_Update(context, "\n", 1);
    add(context, claim->signed_names);
    SHA256_Update(context, "\n", 1);
    memcpy(memory->key, key, 32);
    memcpy(memory->signature, claim->signature, 32);
    memcpy(memory->time, claim->time, sizeof(memory->time));
    memcpy(memory->scope, claim->scope.data, claim->scope.size);
    memory->scope[claim->scope.size] = '\0';
    return SIGV4_GOOD;
}

void sigv4_body(struct sigv4 *sigv4, const uint8_t *data, size_t size) {
    SHA256_Update(&sigv4->body, data, size);
}

bool sigv4_finish(struct sigv4 *sigv4) {
    uint8_t digest[32];
    char digits[65];

    SHA256_Final(digest, &sigv4->body);
    hex_text(digest, 32, digits);
    SHA256_Update(&sigv4->canonical, digits, 64);
    SHA256_Final(digest, &sigv4->canonical);
    hex_text(digest, 32, digits);
    const struct wire_slice parts[] = {
        text(ALGORITHM "\n"), text(sigv4->time), text("\n"), text(sigv4->scope), text("\n"), text(digits)};
    hmac(sigv4->key, parts, ARRAY_SIZE(parts), digest);
    return digest_equal(digest, sigv4->signature);
}
