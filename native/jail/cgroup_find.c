/* Finding hierarchies; see the header. A v1 hierarchy is preferred for a controller that it has; what no v1 hierarchy has
 * comes from v2 (in a hybrid system that is freezing, which v2 has without any controller). */
#include "cgroup_find.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    unsigned controller;
} controllers[] = {{"memory", CGROUP_MEMORY}, {"pids", CGROUP_PIDS}, {"cpu", CGROUP_CPU}, {"freezer", CGROUP_FREEZER}};

/* Which of ours stand in a list that is separated by one of these characters. */
static unsigned parse_list(const char *list, size_t length, const char *separators) {
    unsigned found = 0;
    for (size_t at = 0; at < length;) {
        size_t word = strcspn(list + at, separators);
        if (word > length - at)
            word = length - at;
        for (size_t i = 0; i < sizeof(controllers) / sizeof(controllers[0]); i++)
            if (strlen(controllers[i].name) == word && strncmp(list + at, controllers[i].name, word) == 0)
                found |= controllers[i].controller;
        at += word + 1;
    }
    return found;
}

/* proc(5): "ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAGS...] - TYPE SOURCE SUPEROPTIONS". */
static bool parse_mount(const char *line, size_t length, char *root, char *mount, char *type, char *options) {
    char copy[2048];
    char *separator;

    if (length >= sizeof(copy))
        return false;
    memcpy(copy, line, length);
    copy[length] = '\0';
    separator = strstr(copy, " - ");
    if (separator == NULL)
        return false;
    *separator = '\0';
    return sscanf(copy, "%*s %*s %*s %511s %511s", root, mount) == 2 &&
        sscanf(separator + 3, "%31s %*s %255s", type, options) == 2;
}

/* "ID:CONTROLLERS:PATH"; the unified one is "0::PATH". */
static bool find_own(const char *membership, bool unified, unsigned wanted, char *ret, size_t size) {
    for (const char *line = membership; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        const char *list = memchr(line, ':', length);
        const char *path = list != NULL ? memchr(list + 1, ':', length - (size_t)(list + 1 - line)) : NULL;
        if (path != NULL) {
            bool is_unified = path == list + 1;
            size_t n = length - (size_t)(path + 1 - line);
            if (is_unified == unified && n < size &&
                (unified || (parse_list(list + 1, (size_t)(path - list - 1), ",") & wanted) != 0)) {
                memcpy(ret, path + 1, n);
                ret[n] = '\0';
                return true;
            }
        }
        line += length + (line[length] == '\n');
    }
    return false;
}

/* The own path as seen below the mount point, which may show a part of the hierarchy only (a container's). */
static void make_relative(char *own, const char *root) {
    size_t length = strcmp(root, "/") == 0 ? 0 : strlen(root);
    if (length > 0 && strncmp(own, root, length) == 0 && (own[length] == '/' || own[length] == '\0'))
        memmove(own, own + length, strlen(own + length) + 1);
    /* Outside what the mount shows, or the hierarchy's root itself. */
    if (own[0] != '/' || own[1] == '\0' || strncmp(own, "/..", 3) == 0)
        own[0] = '\0';
}

unsigned cgroup_find(
    const char *mountinfo, const char *membership, const char *unified_controllers, struct cgroup_place *ret) {
    struct cgroup_place unified = {.unified = true};
    unsigned n = 0, taken = 0;

    for (const char *line = mountinfo; *line != '\0';) {
        struct cgroup_place place = {.controllers = 0};
        char root[512], type[32], options[256];
        size_t length = strcspn(line, "\n");
        if (parse_mount(line, length, root, place.mount, type, options)) {
            if (strcmp(type, "cgroup2") == 0 && unified.mount[0] == '\0') {
                if (find_own(membership, true, 0, unified.own, sizeof(unified.own))) {
                    memcpy(unified.mount, place.mount, sizeof(unified.mount));
                    make_relative(unified.own, root);
                }
            } else if (strcmp(type, "cgroup") == 0 && n < CGROUP_HIERARCHIES) {
                place.controllers = parse_list(options, strlen(options), ",") & ~taken;
                if (place.controllers != 0 &&
                    find_own(membership, false, place.controllers, place.own, sizeof(place.own))) {
                    make_relative(place.own, root);
                    taken |= place.controllers;
                    ret[n++] = place;
                }
            }
        }
        line += length + (line[length] == '\n');
    }
    unified.controllers =
        (parse_list(unified_controllers, strlen(unified_controllers), " \n") | CGROUP_FREEZER) & ~taken;
    if (unified.mount[0] != '\0' && unified.controllers != 0 && n < CGROUP_HIERARCHIES)
        ret[n++] = unified;
    return n;
}
