/* What an anchor is made of; shared by the shellmaker and jail_spawn. Internal. */
#pragma once

/* Net, ipc and uts namespaces for the caller and what it clones: loopback up, the host name set. */
int shell_unshare(void);
/* The life of an anchor. Says one byte on `ready` (-1: to nobody) when it has nothing left to lose. `parent`: a socket whose
 * other end is the parent's; when that is gone already the anchor leaves. `lease`: a pipe's end at which it waits for a byte
 * before it stays, or -1; when the other end is closed instead, it leaves. Never returns. */
void shell_anchor(int ready, int lease, int parent) __attribute__((noreturn));
