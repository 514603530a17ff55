/* The JSON reader: what it accepts, what it refuses, and where. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A copy that ends where its allocation ends, so that the sanitizer sees each read beyond it. */
static int parse(const char *text, size_t size, struct json **ret, size_t *ret_offset) {
    char *copy = malloc(size > 0 ? size : 1);
    if (copy == NULL)
        abort();
    memcpy(copy, text, size);
    int r = json_parse(copy, size, ret, ret_offset);
    free(copy);
    return r;
}

static void test_values(void) {
    static const char text[] = " {\"a\": [1, -2, 0, 9007199254740993, 1.5, 1e3], \"b\" : {\"c\":null,\"d\":true},"
                               "\"e\":\"\", \"f\":false, \"g\":[], \"h\":{}}\n";
    static const int64_t numbers[] = {1, -2, 0, 9007199254740993};
    struct json *document;
    CHECK(parse(text, strlen(text), &document, NULL) == 0);
    const struct json_value *root = json_root(document), *a = json_member(root, "a");
    CHECK(root->type == JSON_OBJECT && root->length == 6);
    CHECK(a->type == JSON_ARRAY && a->length == 6);
    unsigned i = 0;
    json_for_each(item, a) {
        CHECK(item->type == (i < 4 ? JSON_INTEGER : JSON_NUMBER));
        CHECK(i >= 4 || item->integer == numbers[i]);
        i++;
    }
    CHECK(i == 6);
    uint64_t number = 99;
    bool flag = false;
    const char *string = "untouched";
    CHECK(json_unsigned(a->first, 1, &number) == 0 && number == 1);
    CHECK(json_unsigned(a->first->next, 10, &number) == -EINVAL && number == 1);
    CHECK(json_unsigned(a->first, 0, &number) == -EINVAL);
    CHECK(json_bool(json_member(json_member(root, "b"), "d"), &flag) == 0 && flag);
    CHECK(json_bool(json_member(json_member(root, "b"), "c"), &flag) == -EINVAL);
    CHECK(json_string(json_member(root, "f"), &string) == -EINVAL && strcmp(string, "untouched") == 0);
    CHECK(json_string(json_member(root, "e"), &string) == 0 && string[0] == '\0');
    CHECK(json_member(root, "z") == NULL && json_member(a, "a") == NULL && json_member(NULL, "a") == NULL);
    CHECK(json_string(NULL, &string) == -EINVAL);
    json_free(document);
}

static void test_strings(void) {
    static const struct {
        const char *text, *decoded;
    } cases[] = {
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
        {"\"\\u0041\\u00e9\\u20AC\\ud83d\\ude00\"", "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f\"", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct json *document;
        CHECK(parse(cases[i].text, strlen(cases[i].text), &document, NULL) == 0);
        CHECK(strcmp(json_root(document)->string, cases[i].decoded) == 0);
        CHECK(json_root(document)->length == strlen(cases[i].decoded));
        json_free(document);
    }
}

static void test_refused(void) {
    static const char *const texts[] = {"", " ", "{", "[", "[1", "[1,", "[1,]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}",
        "{a:1}", "{\"a\":1 \"b\":2}", "[1 2]", "01", "-", "1.", "1e", "1e+", ".5", "+1", "tru", "nulll", "nan", "\"",
        "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u123g\"", "\"\\u0000\"", "\"\\ud800\"", "\"\\ud800\\u0041\"",
        "\"\\udc00\"", "\"\t\"", "\"\x80\"", "\"\xc0\x80\"", "\"\xc3\"", "\"\xe0\x80\x80\"", "\"\xed\xa0\x80\"",
        "\"\xf4\x90\x80\x80\"", "\"\xf8\x88\x80\x80\x80\"", "1 1", "{} {}", "{\"a\":1,\"a\":2}",
        "{\"a\":1,\"\\u0061\":2}", "'a'", "[1]]", "//"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct json *document = (void *)texts;
        size_t offset = 99999;
        if (parse(texts[i], strlen(texts[i]), &document, &offset) != -EBADMSG) {
            fprintf(stderr, "accepted: %s\n", texts[i]);
            exit(1);
        }
        CHECK(document == (void *)texts && offset <= strlen(texts[i]));
    }
    struct json *document;
    CHECK(parse("[\0]", 3, &document, NULL) == -EBADMSG);
}

static void test_maxima(void) {
    char text[2 * JSON_VALUES_MAX + 8];
    struct json *document;
    for (unsigned depth = JSON_DEPTH_MAX - 1; depth <= JSON_DEPTH_MAX + 2; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        int r = parse(text, 2 * depth, &document, NULL);
        CHECK(r == (depth <= JSON_DEPTH_MAX + 1 ? 0 : -E2BIG));
        if (r == 0)
            json_free(document);
    }
    text[0] = '[';
    for (unsigned i = 0; i < JSON_VALUES_MAX; i++)
        memcpy(text + 1 + 2 * i, "1,", 2);
    text[2 * JSON_VALUES_MAX] = ']';
    CHECK(parse(text, 2 * JSON_VALUES_MAX + 1, &document, NULL) == -E2BIG);
    text[2 * JSON_VALUES_MAX - 2] = ']'; /* one value less: with the array itself just what is allowed */
    CHECK(parse(text, 2 * JSON_VALUES_MAX - 1, &document, NULL) == 0);
    json_free(document);
}

int main(void) {
    test_values();
    test_strings();
    test_refused();
    test_maxima();
    return 0;
}
