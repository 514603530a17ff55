/* How a caller names a function: a name, a partial ARN or an ARN, each with an optional qualifier; and the path of an
 * invoke that carries it. Pure. The rules are those of runtimed/model/arn.py, which is its oracle in the tests. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "protocol/wire.h"

/* From Lambda's service model: of Invoke's FunctionName, and of a plain name. */
#define REFERENCE_MAX 256u
#define REFERENCE_NAME_MAX 64u
#define REFERENCE_QUALIFIER_MAX 128u

struct reference {
    struct wire_slice name, qualifier; /* qualifier empty: none was given */
    struct wire_slice region, account; /* empty: not said */
};

enum reference_error {
    REFERENCE_GOOD,
    REFERENCE_NO_NAME, /* it is not a function's name at all */
    REFERENCE_NAME_TOO_LONG,
    REFERENCE_NO_QUALIFIER,  /* the request's own qualifier is none */
    REFERENCE_CONTRADICTION, /* two qualifiers */
};

/* `qualifier`: the request's own, empty if there is none. Slices of the result point into the arguments. */
enum reference_error reference_read(struct wire_slice text, struct wire_slice qualifier, struct reference *ret);
/* What is wrong and what to do, as the caller reads it. */
const char *reference_explain(enum reference_error error);

/* Decodes %XX in place of `into` (as many bytes as the text has are enough). Returns the length or -EINVAL. */
int percent_decode(struct wire_slice text, uint8_t *into);

enum operation {
    OPERATION_OTHER,         /* not the dispatcher's */
    OPERATION_INVOKE,        /* POST /2015-03-31/functions/{FunctionName}/invocations */
    OPERATION_INVOKE_STREAM, /* POST /2021-11-15/functions/{FunctionName}/response-streaming-invocations */
};

/* Which operation a request's target names. *ret_function, *ret_qualifier: as they stand there, percent-encoded;
 * qualifier with size 0 when there is none. Returns -EINVAL when the query has two of them. */
int operation_read(struct wire_slice method, struct wire_slice target, enum operation *ret_operation,
    struct wire_slice *ret_function, struct wire_slice *ret_qualifier);
