"""SnapStart in the sandbox: the end of an init phase whose result later environments begin with.

The launcher chooses an environment to be the maker (native/zygote/include/zygote/snapshot.h). Its init runs as any;
then hooks, and the snapshot. It goes on as an ordinary environment; those that are restored go on at the same point, in
the same way: they are told who they are by START, make fresh what must not be the same in two environments, and run
the hooks. Where no snapshot is taken, the hooks run too: the function cannot tell, and need not.
"""

import gc
import os
import sys
import threading

from . import context, errors, logs, snapshot_restore_py

INIT_TYPE = "AWS_LAMBDA_INITIALIZATION_TYPE"
BEFORE_ERROR = "Runtime.BeforeSnapshotError"
AFTER_ERROR = "Runtime.AfterRestoreError"
THREADS = "/proc/self/task"
SEED_BYTES = 48


class HookError(Exception):
    """A hook raised: its error, under the name that Lambda gives it."""

    def __init__(self, error_type, error):
        self.error_type = error_type
        self.error = error

    def described(self):
        described = errors.describe(self.error)
        described["errorMessage"] = "%s: %s" % (described["errorType"], described["errorMessage"])
        described["errorType"] = self.error_type
        return described


def prepare():
    """In the zygote: functions find the interface by its name, whatever is in their packages."""
    sys.modules["snapshot_restore_py"] = snapshot_restore_py


def applies():
    """Is it a function with SnapStart?"""
    return os.environ.get(INIT_TYPE) == "snap-start"


def end_init(channel, native):
    """After the init phase, before the first invocation. False: the dispatcher is gone."""
    if not applies():
        return True
    _run(reversed(snapshot_restore_py.get_before_snapshot()), BEFORE_ERROR)
    directory = os.getcwd()  # memory keeps it, the process does not
    if native.is_maker() and _take(channel, native):
        started = channel.start(os.environ._data, directory)
        if started is None:
            return False
        context.promised = started
        make_fresh()
    _run(snapshot_restore_py.get_after_restore(), AFTER_ERROR)
    return True


def _run(hooks, error_type):
    for function, positional, named in hooks:
        try:
            function(*positional, **named)
        except Exception as error:
            raise HookError(error_type, error) from None


def _take(channel, native):
    if len(os.listdir(THREADS)) > 1:
        # Libraries that keep threads for computing (OpenBLAS) end them before a fork and start them again when needed.
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    logs.flush()
    gc.collect()
    gc.freeze()
    restored = native.snapshot(channel, True)
    if not restored:
        gc.unfreeze()
    return restored


def make_fresh():
    """What two environments may not share. Python's own random numbers were seeded anew by the hook that `random`
    leaves for forks; what looks at the process id (OpenSSL, tempfile) sees another one."""
    threading._main_thread._native_id = threading.get_native_id()
    seed = os.urandom(SEED_BYTES)
    if "_ssl" in sys.modules:
        sys.modules["_ssl"].RAND_add(seed, 0.0)
    if "random" in sys.modules:
        sys.modules["random"].seed()
    if "tempfile" in sys.modules:
        sys.modules["tempfile"]._name_sequence = None
    if "uuid" in sys.modules:
        sys.modules["uuid"]._last_timestamp = None
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
