/* Our Python programs in jails; see the header. */
#include "programs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int put_command(const struct boot_interpreter *interpreter, const char *program, struct jail_plan *plan) {
    char path[128];
    int r;

    snprintf(path, sizeof(path), "/var/runtime/bootstrap/%s", program);
    const char *const arguments[] = {interpreter->path, "-I", "-S", path};
    for (size_t i = 0; i < sizeof(arguments) / sizeof(arguments[0]); i++) {
        r = jail_plan_add_argument(plan, arguments[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

/* A root shows /usr anyway; what lies elsewhere is shown at its own path. */
static bool lies_in_usr(const char *prefix) {
    return strcmp(prefix, "/usr") == 0 || strncmp(prefix, "/usr/", 5) == 0;
}

int program_fill(
    const struct boot *boot, const struct boot_interpreter *interpreter, const char *program, struct jail_plan *plan) {
    static const struct {
        const char *name, *value;
    } variables[] = {
        {"LANG", "en_US.UTF-8"},
        {"TZ", ":UTC"},
        {"PATH", "/usr/local/bin:/usr/bin:/bin:/opt/bin"},
        /* The dynamic linker reads it once, at exec: what a function's shared libraries are found by is set here. */
        {"LD_LIBRARY_PATH", "/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib"},
        /* Symbols found once, in the zygote, instead of in every environment at the first call of each function. */
        {"LD_BIND_NOW", "1"},
    };
    char native[4096];
    int r = put_command(interpreter, program, plan);

    for (size_t i = 0; r == 0 && i < sizeof(variables) / sizeof(variables[0]); i++)
        r = jail_plan_add_environment(plan, variables[i].name, variables[i].value);
    if ((size_t)snprintf(native, sizeof(native), "%s/python", boot->libexec) >= sizeof(native))
        return -ENAMETOOLONG;
    if (r == 0)
        r = jail_plan_add_mount(plan, boot->bootstrap, "/var/runtime/bootstrap", false);
    if (r == 0)
        r = jail_plan_add_mount(plan, native, "/var/runtime/native", false);
    if (r == 0 && !lies_in_usr(interpreter->prefix))
        r = jail_plan_add_mount(plan, interpreter->prefix, interpreter->prefix, false);
    plan->tmp_mb = 0; /* none: the memory limit is the caller's business too */
    return r;
}
