/* START's configuration: defaults, precedence, and refusals. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/wire.h"
#include "zygote/configuration.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static int read_text(const char *text, uint8_t init_type, struct configuration *ret) {
    /* Exactly as long as it is: the sanitizer sees a byte read beyond. */
    size_t size = strlen(text);
    uint8_t *copy = malloc(size > 0 ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, text, size);
    const struct wire_start start = {.init_type = init_type,
        .log_stream = {.data = (const uint8_t *)"stream", .size = 6},
        .configuration = {.data = copy, .size = (uint32_t)size}};
    int r = configuration_read(&start, ret);
    free(copy);
    return r;
}

static void check(const struct configuration *c, const char *name, const char *value) {
    const char *found = configuration_variable(c, name);
    if (value == NULL ? found != NULL : found == NULL || strcmp(found, value) != 0) {
        fprintf(stderr, "%s: %s\n", name, found != NULL ? found : "(none)");
        exit(1);
    }
}

static void test_defaults(void) {
    struct configuration c;
    CHECK(read_text("{\"handler\":\"app.handler\",\"function_name\":\"f\"}", 0, &c) == 0);
    CHECK(strcmp(c.handler, "app.handler") == 0 && c.level == NULL && c.own == NULL);
    CHECK(c.n_reserved <= CONFIGURATION_RESERVED_MAX);
    check(&c, "_HANDLER", "app.handler");
    check(&c, "AWS_LAMBDA_FUNCTION_NAME", "f");
    check(&c, "AWS_LAMBDA_FUNCTION_VERSION", "$LATEST");
    check(&c, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128");
    check(&c, "AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/f");
    check(&c, "AWS_LAMBDA_LOG_STREAM_NAME", "stream");
    check(&c, "AWS_LAMBDA_LOG_FORMAT", "Text");
    check(&c, "AWS_LAMBDA_LOG_LEVEL", NULL);
    check(&c, "AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand");
    check(&c, "AWS_REGION", "us-east-1");
    check(&c, "AWS_EXECUTION_ENV", NULL);
    configuration_done(&c);
}

static void test_executables(void) {
    struct configuration c;
    CHECK(read_text("{\"handler\":\"a.b\",\"function_name\":\"f\",\"runtime\":\"python3.11\",\"executable\":\"\"}", 0,
              &c) == 0);
    CHECK(c.executable == NULL);
    configuration_done(&c);
    CHECK(read_text("{\"handler\":\"a.b\",\"function_name\":\"f\",\"runtime\":\"provided.al2023\"}", 0, &c) == 0);
    CHECK(c.executable != NULL && c.executable[0] == '\0');
    check(&c, "AWS_EXECUTION_ENV", NULL);
    configuration_done(&c);
    CHECK(read_text("{\"handler\":\"a.b\",\"function_name\":\"f\",\"runtime\":\"nodejs20.x\","
                    "\"executable\":\"/usr/bin/node\"}",
              0, &c) == 0);
    CHECK(c.executable != NULL && strcmp(c.executable, "/usr/bin/node") == 0);
    check(&c, "AWS_EXECUTION_ENV", "AWS_Lambda_nodejs20.x");
    configuration_done(&c);
    CHECK(read_text("{\"handler\":\"a.b\",\"function_name\":\"f\",\"executable\":1}", 0, &c) == -EBADMSG);
}

static void test_everything(void) {
    struct configuration c;
    CHECK(read_text("{\"handler\":\"a.b\",\"function_name\":\"f\",\"function_version\":\"7\",\"memory_mb\":4294967295,"
                    "\"log_group\":\"g\",\"region\":\"r\",\"log_format\":\"JSON\",\"application_log_level\":\"DEBUG\","
                    "\"runtime\":\"python3.11\",\"timeout_ms\":3000,\"other\":[1.5],"
                    "\"environment\":{\"TABLE\":\"orders \\u00fc\",\"_HANDLER\":\"x\",\"EMPTY\":\"\"}}",
              2, &c) == 0);
    CHECK(strcmp(c.level, "DEBUG") == 0 && strcmp(c.log_stream, "stream") == 0);
    check(&c, "TABLE", "orders \xc3\xbc");
    check(&c, "EMPTY", "");
    check(&c, "_HANDLER", "a.b");
    check(&c, "AWS_LAMBDA_FUNCTION_VERSION", "7");
    check(&c, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "4294967295");
    check(&c, "AWS_LAMBDA_LOG_GROUP_NAME", "g");
    check(&c, "AWS_LAMBDA_LOG_FORMAT", "JSON");
    check(&c, "AWS_LAMBDA_LOG_LEVEL", "DEBUG");
    check(&c, "AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start");
    check(&c, "AWS_DEFAULT_REGION", "r");
    check(&c, "AWS_EXECUTION_ENV", "AWS_Lambda_python3.11");
    configuration_done(&c);

    CHECK(read_text("{\"handler\":\"a.b\",\"function_name\":\"f\",\"snap_start\":false}", 1, &c) == 0);
    check(&c, "AWS_LAMBDA_INITIALIZATION_TYPE", "provisioned-concurrency");
    configuration_done(&c);
    for (uint8_t type = 0; type < 3; type++) {
        CHECK(read_text("{\"handler\":\"a.b\",\"function_name\":\"f\",\"snap_start\":true}", type, &c) == 0);
        check(&c, "AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start");
        configuration_done(&c);
    }
}

static void test_refusals(void) {
    static const char *const texts[] = {
        "",
        "[]",
        "1",
        "{}",
        "{\"handler\":\"a.b\"}",
        "{\"function_name\":\"f\"}",
        "{\"handler\":1,\"function_name\":\"f\"}",
        "{\"handler\":\"a.b\",\"function_name\":\"f\",\"memory_mb\":\"128\"}",
        "{\"handler\":\"a.b\",\"function_name\":\"f\",\"memory_mb\":-1}",
        "{\"handler\":\"a.b\",\"function_name\":\"f\",\"memory_mb\":4294967296}",
        "{\"handler\":\"a.b\",\"function_name\":\"f\",\"log_group\":5}",
        "{\"handler\":\"a.b\",\"function_name\":\"f\",\"environment\":[]}",
        "{\"handler\":\"a.b\",\"function_name\":\"f\",\"environment\":{\"A\":1}}",
        "{\"handler\":\"a.b\",\"function_name\":\"f\",\"environment\":{\"\":\"x\"}}",
        "{\"handler\":\"a.b\",\"function_name\":\"f\",\"environment\":{\"A=B\":\"x\"}}",
        "{\"handler\":\"a.b\",\"function_name\":\"f\",\"environment\":{\"A\":\"\\u0000\"}}",
        "{\"handler\":\"a.b\",\"function_name\":\"f\"} x",
    };
    struct configuration c;
    memset(&c, 0x5a, sizeof(c));
    const struct configuration before = c;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        int r = read_text(texts[i], 0, &c);
        if (r != -EBADMSG || memcmp(&c, &before, sizeof(c)) != 0) {
            fprintf(stderr, "%s: %d\n", texts[i], r);
            exit(1);
        }
    }
    CHECK(read_text("{\"handler\":\"a.b\",\"function_name\":\"f\"}", 3, &c) == -EBADMSG);
}

int main(void) {
    test_defaults();
    test_executables();
    test_everything();
    test_refusals();
    return 0;
}
