/* Lines for the journal; see launcher.h. */
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptor.h"
#include "launcher.h"

static void speak(const char *format, va_list arguments) {
    char line[512];
    int n = snprintf(line, sizeof(line), "runtimed-launcher: ");

    n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, arguments);
    n = MIN(n, (int)sizeof(line) - 2);
    line[n++] = '\n';
    (void)write_all(STDERR_FILENO, line, (size_t)n);
}

void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    speak(format, arguments);
    va_end(arguments);
}

void mention(const struct server *server, const char *format, ...) {
    va_list arguments;
    if (server->boot.log_level > LOG_LEVEL_INFO)
        return;
    va_start(arguments, format);
    speak(format, arguments);
    va_end(arguments);
}
