/* What START says a function was promised: its variables and its log format. Pure; runs in the environment before any
 * code of the function's.
 *
 * START.configuration is a JSON object made by the control plane: handler, function_name (both required),
 * function_version, memory_mb, log_group, region, log_format ("Text" or "JSON"), application_log_level, runtime,
 * executable (the interpreter of a runtime that is not Python), snap_start (true or false), environment (the function's own variables, strings).
 * Other members are of no concern here. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "protocol/wire.h"

struct variable {
    const char *name, *value;
};

/* More than there are. */
#define CONFIGURATION_RESERVED_MAX 20

struct configuration {
    struct json *document;
    char *text;                   /* what had to be composed */
    const struct json_value *own; /* the function's variables, or NULL; the reserved ones win over them */
    struct variable reserved[CONFIGURATION_RESERVED_MAX];
    unsigned n_reserved;
    const char *handler, *function_name, *function_version, *memory, *log_group, *log_stream;
    const char *executable; /* of another runtime than Python; "": the function's own `bootstrap`; NULL: Python's */
    const char *level;      /* of application logs, NULL: the text format */
};

/* -EBADMSG: not such a configuration; -ENOMEM. */
int configuration_read(const struct wire_start *start, struct configuration *ret);
void configuration_done(struct configuration *configuration);
/* The last value given to a variable, or NULL. */
const char *configuration_variable(const struct configuration *configuration, const char *name);
