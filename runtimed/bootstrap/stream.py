"""Responses that come in parts: what a handler that streams writes goes out as it comes.

A handler streams in one of two ways. It is a generator function, or returns an iterator, of bytes and str:

    def handler(event, context):
        yield "one"
        yield b"two"

or it asks its context for the stream and writes to that; what it returns is then of no interest:

    def handler(event, context):
        stream = context.response_stream("text/event-stream")
        stream.write("data: one\\n\\n")

Both together are allowed: the first gives the parts, the second what is said of them. `metadata` (statusCode, headers,
cookies) makes it a response for HTTP: content type application/vnd.awslambda.http-integration-response, the metadata as
JSON and eight NULs in front of the first part.

The response begins with its first part: what the handler raises before that is the same error as ever. It ends when the
handler returns, or raises: then the caller is told that it is not whole. A caller that reads slowly holds `write` up.
"""

import threading

from . import payload
from .errors import MARSHAL, Fault

HTTP_TYPE = "application/vnd.awslambda.http-integration-response"
METADATA_END = b"\0" * 8
CONTENT_TYPE_MAX = 256

# The one of the present invocation, once it was asked for.
opened = None


def is_iterator(result):
    return hasattr(result, "__next__")


class ResponseStream:
    """Takes the parts of one response; may be used by several threads."""

    def __init__(self, channel):
        self._channel = channel
        self._lock = threading.Lock()
        self._content_type = ""
        self._prelude = b""
        self._over = False
        self.begun = False

    def describe(self, content_type, metadata):
        if self.begun:
            raise ValueError("The response has begun: say what it is before its first part.")
        if not isinstance(content_type, str) or len(content_type.encode("utf-8", "replace")) > CONTENT_TYPE_MAX:
            raise ValueError("A content type is a str of at most %d bytes." % CONTENT_TYPE_MAX)
        if metadata is not None:
            content_type = HTTP_TYPE
            self._prelude = payload.to_json(metadata) + METADATA_END
        self._content_type = content_type

    def write(self, data):
        """Sends bytes, or a str in UTF-8; returns how many. Waits for a caller that is slow."""
        part = _bytes(data)
        with self._lock:
            if self._over:
                raise ValueError("The response is over: its invocation has ended.")
            if part:
                self._send(part)
        return len(part)

    def flush(self):
        """Nothing is held back."""

    def _send(self, part):
        if self.begun:
            self._channel.part(part)
        else:
            self.begun = True
            self._channel.stream(self._content_type, self._prelude + part)

    def finish(self):
        """All is written."""
        with self._lock:
            self._over = True
            if not self.begun:
                self._send(b"")

    def stop(self):
        """Nothing more may be written. Whether something was."""
        with self._lock:
            self._over = True
            return self.begun


def open_stream(channel):
    """That of the present invocation."""
    global opened
    if opened is None:
        opened = ResponseStream(channel)
    return opened


def send(channel, result):
    """What a handler gave that streams, up to the end, which is not told yet."""
    stream = open_stream(channel)
    if is_iterator(result):
        try:
            for part in result:
                stream.write(part)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
    stream.finish()


def _bytes(data):
    if isinstance(data, str):
        try:
            return data.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Fault(MARSHAL, "Unable to marshal response: %s" % error) from None
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    raise Fault(MARSHAL, "Unable to marshal response: a part of a stream is bytes or str, not %s" % type(data).__name__)
