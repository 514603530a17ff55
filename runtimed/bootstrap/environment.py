"""An execution environment: what a zygote's child runs from its fork to its end.

START makes the process what the function was promised (variables, search path, log format); the handler is imported;
then invocations come over the channel, one at a time. The process is the function's own: it may leave by sys.exit,
which the platform tells as Runtime.ExitError, keep threads, or install signal handlers. It is ended from outside, so
exit handlers do not run then.
"""

import errno
import os
import sys
import threading
import time
from importlib import machinery

from . import context, errors, handlers, logs, payload, rehearsal, snapshots, stream

# sysexits.h: the dispatcher sent what no dispatcher sends.
EXIT_PROTOCOL = 76
EXIT_INIT_ERROR = 1

# Entries of the search path that prepare() makes.
OWN_PATHS = 3

# What modules wanted done around forks, held back by the zygote.
fork_hooks = []

# Where a runtime of the function's own is looked for, in this order.
ENTRYPOINTS = ("/var/task/bootstrap", "/opt/bootstrap")

NODE_PROGRAM = "/var/runtime/bootstrap/node.mjs"
NODE_OLD_PERCENT = 75

TRACE_VARIABLE = "_X_AMZN_TRACE_ID"


def leave(status):
    """At once: nothing that the function left behind may hold the process up."""
    logs.flush()
    os._exit(status)


def prepare(task_root, layer_root):
    """What can be done before it is known whose environment this will be: once, in the zygote.

    Search path: the function's code, its layers' packages, and what layers put into python/. The finders are made here
    because the usual way to one asks every path hook first. They read the directories when they are first asked.
    """
    own = [
        task_root,
        "%s/python/lib/python%d.%d/site-packages" % (layer_root, sys.version_info[0], sys.version_info[1]),
        layer_root + "/python",
    ]
    details = [
        (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
        (machinery.SourceFileLoader, machinery.SOURCE_SUFFIXES),
        (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
    ]
    for path in own:
        sys.path_importer_cache[path] = machinery.FileFinder(path, *details)
    sys.path[:0] = own
    os.environ["LAMBDA_TASK_ROOT"] = task_root
    logs.prepare()
    snapshots.prepare()


def begin(started, native):
    """Becomes the function's environment, as far as start() has not done it; returns the handler's name.

    Every page of memory that is touched here is copied for every environment: hence so little ceremony.
    """
    handler, _, _, _, _, _, level, path, zoned, _ = context.promised = started  # _: executable
    if level is not None:
        logs.use_json(level)
    if path is not None:
        sys.path[OWN_PATHS:OWN_PATHS] = [entry for entry in path.split(":") if entry]
    if zoned:
        time.tzset()
    # What threading's fork hook would have done that matters; the function's own forks run all hooks.
    threading._main_thread._native_id = threading.get_native_id()
    native.arm(fork_hooks)
    return handler


def fail_init(channel, described, limit):
    """Tells why there will be no environment, and leaves."""
    logs.write_error(described)
    logs.flush()
    try:
        channel.init_error(described["errorType"], payload.error_json(described, limit))
    except OSError:
        pass  # the dispatcher is gone
    leave(EXIT_INIT_ERROR)


def node_command(node, memory_mb):
    """What Node.js is started with, and the variables that it needs: where layers put packages, and a heap (an old
    space and three young ones) within the function's memory, for Node.js goes by the machine's."""
    name = os.environ.get("AWS_EXECUTION_ENV", "").rpartition("_nodejs")[2].partition(".")[0]
    os.environ.setdefault("NODE_PATH", "/opt/nodejs/node%s/node_modules:/opt/nodejs/node_modules" % name)
    os.environ["LAMBDA_RUNTIME_DIR"] = "/var/runtime"
    old, young = memory_mb * NODE_OLD_PERCENT // 100, min(16, memory_mb // 32)
    return [node, "--max-old-space-size=%d" % old, "--max-semi-space-size=%d" % young, NODE_PROGRAM]


def run_executable(channel, started):
    """Becomes a runtime that speaks the Runtime API: another interpreter's, or the function's own.

    The channel ends with the execve. Signals that the interpreter ignores would stay ignored.
    """
    import _signal

    executable, path = started[-1], started[7]
    if path is None:
        del os.environ["PYTHONPATH"]  # ours
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT):
        _signal.signal(number, _signal.SIG_DFL)
    reason = "there is no bootstrap in it"
    commands = [node_command(executable, int(started[3]))] if executable else [[one] for one in ENTRYPOINTS]
    for command in commands:
        try:
            os.execv(command[0], command)
        except FileNotFoundError:
            if executable:
                reason = "%s is not there" % executable
            elif os.path.exists(command[0]):
                reason = "%s: the interpreter that its first line names is missing" % command[0]
        except OSError as error:
            reason = "%s: %s" % (command[0], error.strerror)
            break
    described = {
        "errorType": "Runtime.InvalidEntrypoint",
        "errorMessage": "The runtime cannot be started: %s" % reason,
        "stackTrace": [],
    }
    logs.write_error(described)
    logs.flush()
    try:
        channel.init_error(described["errorType"], payload.error_json(described, 4096))
    except OSError:
        pass
    leave(EXIT_INIT_ERROR)


def park(channel, native):
    """In a spare: what can be done before it is known whose environment this will be, and the word to the launcher."""
    try:
        rehearse_start(channel, native)
        rehearse(channel, native)
        channel.ready(native.spare())
    except OSError:
        leave(EXIT_PROTOCOL)


def rehearse_start(channel, native):
    """The way from START to a handler, for a function of ours: for the same reason as an invocation from nobody, and
    with nothing to be seen afterwards but memory that is there."""
    data = os.environ._data
    before = set(data)
    channel.rehearse(rehearsal.start_packet)
    started = channel.start(data, "/")
    channel.rehearse(None)
    begin(started, native)
    native.read_compiled(sys.path[0], rehearsal.NAME, handlers.TAG, handlers.MARK, handlers.PREFERRED)
    handlers.rehearse(rehearsal.NAME, rehearsal.code)
    for name in [name for name in data if name not in before]:
        del data[name]
    context.promised = context.NOTHING


def run(channel, native):
    """Returns never; raises what the function wants the interpreter to die of."""
    if native.spare():
        park(channel, native)
    try:
        started = channel.start(os.environ._data, sys.path[0])
        if started is None:
            leave(0)
        if started[-1] is not None:
            run_executable(channel, started)
        handler_name = begin(started, native)
    except Exception as error:
        logs.write("runtimed: the environment cannot start: %s" % errors.text_of(error))
        leave(EXIT_PROTOCOL)
    try:
        handler = handlers.load(handler_name, native)
        if not snapshots.end_init(channel, native):
            leave(0)
    except snapshots.HookError as error:
        fail_init(channel, error.described(), native.INIT_ERROR_MAX)
    except Exception as error:
        fail_init(channel, errors.describe(error), native.INIT_ERROR_MAX)
    logs.flush()
    if channel.is_ahead():
        rehearse(channel, native)
    channel.init_done()
    serve(channel, native, handler)


def serve(channel, native, handler):
    """The invoke phase, again and again."""
    while True:
        try:
            invocation = channel.next()
            if invocation is None:
                leave(0)
            answer(channel, native, handler, invocation)
        except OSError as error:
            if error.errno != errno.EPIPE:
                logs.write("runtimed: the channel broke: %s" % error)
            leave(EXIT_PROTOCOL)
        invocation = None  # not kept alive while the next one is waited for


def rehearse(channel, native):
    """An invocation that came from nobody, of a handler of ours, while nobody waits for this environment: memory that
    is shared with the zygote is copied when it is first written to, and most of what the first invocation of an
    environment takes is that. Nothing of it is to be seen afterwards.
    """
    rehearsal.under_way = True
    try:
        channel.rehearse(rehearsal.packet)
        answer(channel, native, rehearsal.handler, channel.next())
    finally:
        channel.rehearse(None)
        rehearsal.under_way = False
        context.channel = stream.opened = None
        logs.current.request_id = ""
        os.environ.pop(TRACE_VARIABLE, None)


def answer(channel, native, handler, invocation):
    """One invocation."""
    request_id, deadline_ms, arn, trace, client_context, cognito_identity, tenant_id, body = invocation
    logs.current.request_id = request_id
    logs.current.tenant_id = tenant_id
    set_trace(trace)
    write_result = payload.write_result  # as it is now, whatever the handler does to it
    try:
        given = context.LambdaContext(request_id, deadline_ms, arn, client_context, cognito_identity, tenant_id)
        context.channel = channel
        result = handler(payload.read_event(body), given)
        if stream.opened is not None or stream.is_iterator(result):
            stream.send(channel, result)
            result = None
        else:
            result = check_size(write_result(result, native.has_records), native.RESPONSE_MAX)
    except Exception as error:
        fail(channel, native, errors.describe(error, request_id))
    else:
        logs.flush()
        if result is None:
            channel.end()
        else:
            channel.respond(result)
    stream.opened = None


def check_size(result, limit):
    if len(result) > limit:
        raise errors.Fault(
            errors.RESPONSE_SIZE,
            "Response payload size exceeded maximum allowed payload size (%d bytes)." % limit,
        )
    return result


def fail(channel, native, described):
    """Tells the error: instead of a result, or as the end of one that has begun."""
    if rehearsal.under_way:
        return  # the function put something of its own in the way, which is its own to find
    begun = stream.opened is not None and stream.opened.stop()
    logs.write_error(described)
    logs.flush()
    if begun:
        channel.end(shown(described["errorType"]), payload.error_json(described, native.STREAM_ERROR_MAX))
    else:
        channel.error(described["errorType"], payload.error_json(described, native.RESPONSE_MAX))


def shown(text):
    """Without halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode("utf-8")


def set_trace(trace):
    """X-Ray's header of this invocation, where its SDK looks for it."""
    if trace is not None:
        os.environ[TRACE_VARIABLE] = trace
    elif TRACE_VARIABLE in os.environ:
        del os.environ[TRACE_VARIABLE]
