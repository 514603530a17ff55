/* Our Python programs in jails: what zygotes and tasks have in common. */
#pragma once

#include "boot.h"
#include "jail/plan.h"

/* `<interpreter> -I -S /var/runtime/bootstrap/<program>` with the runtime's files and the interpreter's prefix mounted
 * read-only. The plan is initialised; 0 or negative errno. */
int program_fill(
    const struct boot *boot, const struct boot_interpreter *interpreter, const char *program, struct jail_plan *plan);
