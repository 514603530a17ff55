"""HTTP/1.1 as bytes, by h11: heads, bodies, answers. Pure: no input or output here.

A connection is answered once and closed. The dispatcher, which reads more requests a second than this process could,
takes the caller's next connection; every SDK and HTTP client knows how to make one.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote

import h11
from msgspec import Struct

from runtimed.model import errors

HEAD_MAX = 128 * 1024
"""More than the dispatcher lets through."""


class Head(Struct, frozen=True, kw_only=True):
    """A request without its body."""

    method: str
    path: str
    """As it was sent, percent-encoded."""
    query: list[tuple[str, str]]
    media_type: str


class Exchange:
    """One request and its answer, on one connection."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        self._bodiless = False

    def head(self, data: bytes) -> Head:
        """`data`: from the first byte of the request on, the whole head and as much of what follows as there is."""
        try:
            self._http.receive_data(data)
            request = self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise _unreadable(error) from None
        if not isinstance(request, h11.Request):
            raise errors.InvalidRequestContent("The request's head is not whole.")
        self._bodiless = request.method == b"HEAD"
        path, _, query = request.target.decode("ascii").partition("?")
        try:
            parameters = parse_qsl(query, keep_blank_values=True, max_num_fields=100, errors="strict")
        except ValueError:
            raise errors.InvalidParameterValue("The query cannot be read.") from None
        fields = {name: value.decode("latin-1") for name, value in request.headers}
        return Head(
            method=request.method.decode("ascii"),
            path=path,
            query=parameters,
            media_type=fields.get(b"content-type", "").partition(";")[0].strip().lower(),
        )

    @property
    def waits(self) -> bool:
        """The caller sends no body before it is told to (`go_on`)."""
        return self._http.they_are_waiting_for_100_continue

    def go_on(self) -> bytes:
        """What tells it."""
        return self._send(h11.InformationalResponse(status_code=100, headers=[]))

    def parts(self) -> tuple[list[bytes], bool]:
        """What there is of the body, and whether that is its end."""
        found: list[bytes] = []
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise _unreadable(error) from None
            if not isinstance(event, h11.Data):
                return found, isinstance(event, h11.EndOfMessage)
            found.append(bytes(event.data))

    def receive(self, data: bytes) -> None:
        """More from the connection; empty: its end."""
        try:
            self._http.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise _unreadable(error) from None

    def answer(self, status: int, fields: list[tuple[str, str]], body: bytes) -> bytes:
        """The answer's bytes; after them the connection ends. Once."""
        length = [] if status == 204 else [("Content-Length", str(len(body)))]
        sent = self._send(h11.Response(status_code=status, headers=[*fields, *length, ("Connection", "close")]))
        if body and not self._bodiless:
            sent += self._send(h11.Data(data=body))
        return sent + self._send(h11.EndOfMessage())

    def _send(self, event: h11.Event) -> bytes:
        return bytes(self._http.send(event) or b"")


def _unreadable(error: h11.RemoteProtocolError) -> errors.InvalidRequestContent:
    return errors.InvalidRequestContent(f"The request cannot be read: {error}.")


def decoded(segment: str) -> str:
    """One part of a path."""
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise errors.InvalidParameterValue("The path is not UTF-8.") from None
