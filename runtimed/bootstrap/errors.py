"""Lambda's error object, and the faults that the runtime itself makes of what a function did.

Types and texts are those of AWS's own Python runtime: callers compare them.
"""

import os
import traceback

IMPORT_MODULE = "Runtime.ImportModuleError"
HANDLER_NOT_FOUND = "Runtime.HandlerNotFound"
SYNTAX = "Runtime.UserCodeSyntaxError"
MALFORMED_HANDLER = "Runtime.MalformedHandlerName"
BUILT_IN_CONFLICT = "Runtime.BuiltInModuleConflict"
UNMARSHAL = "Runtime.UnmarshalError"
MARSHAL = "Runtime.MarshalError"
CONTEXT = "Runtime.LambdaContextUnmarshalError"
RESPONSE_SIZE = "Function.ResponseSizeTooLarge"

OWN_DIRECTORY = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Fault(Exception):
    """A failure that has a type of the platform's instead of an exception's, and no trace of ours."""

    def __init__(self, error_type, message, trace=()):
        Exception.__init__(self, message)
        self.error_type = error_type
        self.message = message
        self.trace = list(trace)


def describe(error, request_id=""):
    """The error object of an exception."""
    if isinstance(error, Fault):
        return {
            "errorMessage": error.message,
            "errorType": error.error_type,
            "requestId": request_id,
            "stackTrace": error.trace,
        }
    return {
        "errorMessage": text_of(error),
        "errorType": type(error).__name__,
        "requestId": request_id,
        "stackTrace": trace_of(error),
    }


def text_of(error):
    """str() of an exception, whose method is the function's own code."""
    try:
        return str(error)
    except Exception:
        return "<exception str() failed>"


def trace_of(error):
    """The trace as formatted frames, without those of ours that lead into the function."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(OWN_DIRECTORY):
        frame = frame.tb_next
    try:
        frames = [(f.filename, f.lineno, f.name, f.line) for f in traceback.extract_tb(frame)]
        return traceback.format_list(frames)
    except Exception:
        return []


def shorten(described, frames, characters):
    """A smaller copy of an error object: so many frames, from either end, and so many characters of each text."""
    trace = described["stackTrace"]
    if len(trace) > frames:
        note = "  [%d frames left out]\n" % (len(trace) - frames)
        trace = [*trace[: frames // 2], note, *trace[len(trace) - frames // 2 :]]
    return dict(
        described,
        errorMessage=described["errorMessage"][:characters],
        errorType=described["errorType"][:characters],
        stackTrace=[frame[:characters] for frame in trace],
    )
