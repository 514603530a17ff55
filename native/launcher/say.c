/* Lines for the journal; see launcher.h. */
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "launcher.h"

void say(const char *format, ...) {
    char line[512];
    va_list arguments;
    int n = snprintf(line, sizeof(line), "runtimed-launcher: ");

    va_start(arguments, format);
    n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, arguments);
    va_end(arguments);
    n = MIN(n, (int)sizeof(line) - 2);
    line[n++] = '\n';
    (void)write_all(STDERR_FILENO, line, (size_t)n);
}
