/* START's configuration; see the header. Strings point into the parsed document or into one composed piece of text. */
#include "zygote/configuration.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define EXECUTION_ENVIRONMENT "AWS_Lambda_"
#define CUSTOM "provided"
#define LOG_GROUP "/aws/lambda/"
#define MEMORY_DEFAULT_MB 128u

/* By START's number, which wire.h calls WIRE_INIT_TYPE_*. */
static const char *const init_types[] = {"on-demand", "provisioned-concurrency", "snap-start"};

void configuration_done(struct configuration *configuration) {
    json_free(configuration->document);
    free(configuration->text);
    configuration->document = NULL;
    configuration->text = NULL;
}

/* The member's text, or what stands for it when it is missing. False: it is something else than text. */
static bool member(const struct json_value *root, const char *name, const char *missing, const char **ret) {
    const struct json_value *value = json_member(root, name);
    if (value == NULL || value->type == JSON_NULL) {
        *ret = missing;
        return missing != NULL;
    }
    return json_string(value, ret) == 0;
}

static void reserve(struct configuration *c, const char *name, const char *value) {
    c->reserved[c->n_reserved++] = (struct variable){.name = name, .value = value};
}

/* Room for the composed texts: each is a constant and at most one string of the message. */
static size_t text_size(const struct wire_start *start) {
    return (size_t)start->log_stream.size + start->configuration.size * 2 + 128;
}

static char *compose(char **at, const char *first, size_t first_size, const char *second) {
    char *text = *at;
    memcpy(text, first, first_size);
    strcpy(text + first_size, second);
    *at += first_size + strlen(second) + 1;
    return text;
}

/* Before `end`, with its terminator. printf would touch a dozen pages that nothing else here needs. */
static const char *decimal(uint64_t number, char *end) {
    *--end = '\0';
    do
        *--end = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    return end;
}

static bool read_own(struct configuration *c, const struct json_value *root) {
    const struct json_value *own = json_member(root, "environment");
    if (own == NULL || own->type == JSON_NULL)
        return true;
    if (own->type != JSON_OBJECT)
        return false;
    json_for_each(item, own) {
        if (item->type != JSON_STRING || item->key[0] == '\0' || strchr(item->key, '=') != NULL)
            return false;
    }
    c->own = own;
    return true;
}

static bool read_members(struct configuration *c, const struct wire_start *start) {
    const struct json_value *root = json_root(c->document), *memory = json_member(root, "memory_mb");
    const struct json_value *snap_start = json_member(root, "snap_start");
    uint8_t init_type = start->init_type;
    const char *region, *runtime, *format, *level, *executable;
    uint64_t memory_mb = MEMORY_DEFAULT_MB;
    char *at = c->text, digits[16];
    bool custom;

    if (!member(root, "handler", NULL, &c->handler) || !member(root, "function_name", NULL, &c->function_name) ||
        !member(root, "function_version", "$LATEST", &c->function_version) ||
        !member(root, "log_group", "", &c->log_group) || !member(root, "region", "us-east-1", &region) ||
        !member(root, "runtime", "", &runtime) || !member(root, "log_format", "Text", &format) ||
        !member(root, "application_log_level", "INFO", &level) || !member(root, "executable", "", &executable) ||
        (memory != NULL && json_unsigned(memory, UINT32_MAX, &memory_mb) < 0) || !read_own(c, root) ||
        start->init_type >= ARRAY_SIZE(init_types))
        return false;
    c->memory = compose(&at, "", 0, decimal(memory_mb, digits + sizeof(digits)));
    c->log_stream = compose(&at, (const char *)start->log_stream.data, start->log_stream.size, "");
    if (c->log_group[0] == '\0')
        c->log_group = compose(&at, LOG_GROUP, sizeof(LOG_GROUP) - 1, c->function_name);
    custom = strcmp(runtime, CUSTOM) == 0 || strncmp(runtime, CUSTOM ".", sizeof(CUSTOM)) == 0;
    c->executable = custom || executable[0] != '\0' ? executable : NULL;
    /* Only managed runtimes have a name for themselves. */
    if (runtime[0] != '\0' && !custom)
        reserve(
            c, "AWS_EXECUTION_ENV", compose(&at, EXECUTION_ENVIRONMENT, sizeof(EXECUTION_ENVIRONMENT) - 1, runtime));
    c->level = strcmp(format, "JSON") == 0 ? level : NULL;
    reserve(c, "_HANDLER", c->handler);
    reserve(c, "AWS_REGION", region);
    reserve(c, "AWS_DEFAULT_REGION", region);
    reserve(c, "AWS_LAMBDA_FUNCTION_NAME", c->function_name);
    reserve(c, "AWS_LAMBDA_FUNCTION_VERSION", c->function_version);
    reserve(c, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", c->memory);
    /* Whether from a snapshot or not: a function with SnapStart is not to tell. Also where its environments are provisioned:
     * any of them may be the one that makes the snapshot. */
    if (snap_start != NULL && snap_start->type == JSON_BOOL && snap_start->integer != 0)
        init_type = WIRE_INIT_TYPE_SNAP_START;
    reserve(c, "AWS_LAMBDA_INITIALIZATION_TYPE", init_types[init_type]);
    reserve(c, "AWS_LAMBDA_LOG_GROUP_NAME", c->log_group);
    reserve(c, "AWS_LAMBDA_LOG_STREAM_NAME", c->log_stream);
    reserve(c, "AWS_LAMBDA_LOG_FORMAT", c->level != NULL ? "JSON" : "Text");
    if (c->level != NULL)
        reserve(c, "AWS_LAMBDA_LOG_LEVEL", c->level);
    return true;
}

int configuration_read(const struct wire_start *start, struct configuration *ret) {
    struct configuration c = {.document = NULL};
    int r = json_parse((const char *)start->configuration.data, start->configuration.size, &c.document, NULL);

    if (r < 0)
        return r == -ENOMEM ? r : -EBADMSG;
    c.text = malloc(text_size(start));
    if (c.text == NULL)
        r = -ENOMEM;
    else if (json_root(c.document)->type != JSON_OBJECT || !read_members(&c, start))
        r = -EBADMSG;
    if (r < 0) {
        configuration_done(&c);
        return r;
    }
    *ret = c;
    return 0;
}

const char *configuration_variable(const struct configuration *configuration, const char *name) {
    const char *value;
    for (unsigned i = 0; i < configuration->n_reserved; i++)
        if (strcmp(configuration->reserved[i].name, name) == 0)
            return configuration->reserved[i].value;
    return json_string(json_member(configuration->own, name), &value) == 0 ? value : NULL;
}
