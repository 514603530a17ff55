/* sd_notify without libsystemd: one datagram to the socket that the service manager named. */
#pragma once

/* Does nothing when there is no manager. */
void notify(const char *state);
