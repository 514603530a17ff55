/* The launcher's place on the machine: run and state directories, the lock, the invoke socket, the pid file (RUN.pid). */
#pragma once

struct server;

/* Opens, locks and clears what an earlier run left. Says why when it cannot. */
int place_open(struct server *server);
/* Removes what place_open made, the lock last. */
void place_close(struct server *server);
