"""What a function prints and logs: lines to descriptor 1, where the platform reads them.

Text goes out when a line ends, when an invocation ends, or when the function flushes. Records of `logging` become one
line each in the format that the function chose (text or JSON); an error that a handler let through becomes
`[ERROR] Type: message` and its trace. Formats are those of AWS's Python runtime, but for the indentation of traces,
which stays made of spaces.
"""

import io
import json
import logging
import sys
import time
import traceback

TEXT_FORMAT = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S"

# What every record has; anything else in it came by `extra=` and belongs into a JSON line.
STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {
    "asctime", "aws_request_id", "message", "taskName", "tenant_id",
}  # fmt: skip


class _Current:
    """Of the invocation under way, for records."""

    request_id = ""
    tenant_id = None
    as_json = False


current = _Current()


def _stream(descriptor, errors):
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors=errors, newline="\n", line_buffering=True)


def open_streams():
    """Replaces the interpreter's own streams; done in the zygote, whose descriptors 1 and 2 its children replace."""
    sys.stdout = sys.__stdout__ = _stream(1, "strict")
    sys.stderr = sys.__stderr__ = _stream(2, "backslashreplace")


def flush():
    """Unfinished lines too. Works on the original streams: what the function put in their place is its own."""
    try:
        sys.__stdout__.flush()
        sys.__stderr__.flush()
    except (OSError, ValueError):
        pass  # the function closed them


def write(text):
    """One entry of the log."""
    if not text.endswith("\n"):
        text += "\n"
    try:
        sys.__stdout__.write(text)
    except UnicodeEncodeError:
        sys.__stdout__.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))
    except (OSError, ValueError):
        pass  # the function closed it


def timestamp(seconds):
    return "%s.%03dZ" % (time.strftime(TIME_FORMAT, time.gmtime(seconds)), int(seconds * 1000) % 1000)


class LambdaLoggerHandler(logging.Handler):
    def emit(self, record):
        try:
            write(self.format(record))
        except Exception:
            self.handleError(record)


class LambdaLoggerFilter(logging.Filter):
    def filter(self, record):
        record.aws_request_id = current.request_id
        record.tenant_id = current.tenant_id
        return True


class JsonFormatter(logging.Formatter):
    def format(self, record):
        line = {
            "timestamp": timestamp(record.created),
            "level": logging.getLevelName(min(50, max(0, record.levelno)) // 10 * 10),
            "message": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info and record.exc_info[0] is not None:
            kind, value, trace = record.exc_info
            line["stackTrace"] = traceback.format_tb(trace)
            line["errorType"] = kind.__name__
            line["errorMessage"] = str(value)
            line["location"] = "%s:%s:%d" % (record.pathname, record.funcName, record.lineno)
        line["requestId"] = current.request_id
        if current.tenant_id is not None:
            line["tenantId"] = current.tenant_id
        for name, value in vars(record).items():
            if name not in STANDARD_FIELDS and name not in line and value is not None:
                line[name] = value
        return json.dumps(line, ensure_ascii=False, default=str)


def level_of(name):
    """A level of the function's configuration, as `logging` calls it."""
    name = name.upper()
    return "DEBUG" if name == "TRACE" else name


def prepare():
    """The root logger's handler, in the text format; done in the zygote."""
    logging.Formatter.converter = time.gmtime
    handler = LambdaLoggerHandler()
    handler.setFormatter(logging.Formatter(TEXT_FORMAT, TIME_FORMAT))
    handler.addFilter(LambdaLoggerFilter())
    logging.getLogger().addHandler(handler)


def use_json(level):
    """The function chose the JSON format, which comes with an application log level."""
    current.as_json = True
    root = logging.getLogger()
    root.handlers[0].setFormatter(JsonFormatter())
    if isinstance(logging.getLevelName(level_of(level)), int):
        root.setLevel(level_of(level))


def write_error(described):
    """An error object as the log shows it."""
    if current.as_json:
        line = dict(timestamp=timestamp(time.time()), level="ERROR", **described)
        write(json.dumps(line, ensure_ascii=False))
        return
    head = "[ERROR]"
    if described["errorType"]:
        head += " " + described["errorType"]
    if described["errorMessage"]:
        head += (": " if described["errorType"] else " ") + described["errorMessage"]
    lines = [head, "Traceback (most recent call last):"]
    for frame in described["stackTrace"]:
        lines += frame.splitlines() or [""]
    write("\n".join(lines))
