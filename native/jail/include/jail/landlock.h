/* A second lock on the file system, where the kernel has landlock: even if a mount were writable by mistake, nothing but
 * /tmp and existing devices can be written; nor can what everyone may open for writing in /proc (pressure triggers). Part
 * of `jail_core`. */
#pragma once

/* The ABI number, or 0 where landlock is missing or off. */
int landlock_abi(void);
/* Restricts the caller and its children: no writing outside /tmp and /dev, no signals and abstract sockets across the sandbox's
 * border (from ABI 6). Does nothing below ABI 2, whose rules forbid every rename between directories. */
int landlock_restrict(void);
