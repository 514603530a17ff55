/* sd_notify without libsystemd: one datagram to the socket that the service manager named. */
#pragma once

#include <stdint.h>

/* Lines of NAME=VALUE. Does nothing when there is no manager. */
void notify(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* How often the manager wants to hear WATCHDOG=1 from this process; 0: not at all. Microseconds. */
uint64_t notify_watchdog_us(void);
