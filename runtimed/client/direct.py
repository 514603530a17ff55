"""The short way of an invocation: to the dispatcher itself, past the control plane, where it can be reached.

Its socket lies beside the control socket, its port is 7402 where the control plane's is 7401. Whatever it refuses
without having run anything, and the control plane may know or say better, is asked of the control plane: a function
that it does not know (yet), a request that it cannot read, a caller whom it does not let in. Nothing else is ever sent
twice.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from runtimed.client.errors import NotPermitted, Unreachable
from runtimed.model import errors

if TYPE_CHECKING:
    from runtimed.client.address import Address

SOCKET = "invoke.sock"
PORT = 7402
CONTROL_PORT = 7401
REACH_SECONDS = 1.0
"""For the dispatcher to say that it is there; then invocations go the long way."""
AGAIN_SECONDS = 5.0
"""How long one that was not there is not looked for again."""

_EXPLAINED = (errors.ResourceNotFound, errors.InvalidParameterValue, errors.InvalidRequestContent)
"""Nothing ran; the control plane's sentence names what is wrong."""

_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""The preface of HTTP/2 and empty settings; the answer begins with settings too."""
_FRAME_BYTES = 9
_SETTINGS = 4


class Direct:
    """Where the dispatcher of a daemon is, and whether it was there when it was looked for last."""

    def __init__(self, address: Address) -> None:
        self.address = beside(address)
        self._control = address
        self._known = False
        self._again = 0.0

    @property
    def known(self) -> bool:
        """It was there; its address is set."""
        return self._known

    def due(self) -> bool:
        """Whether to look for it."""
        return not self._known and self.address is not None and time.monotonic() >= self._again

    def look(self) -> None:
        """Blocks for at most REACH_SECONDS."""
        if self.address is not None:
            self._known = _answers(self.address)
            self._again = time.monotonic() + AGAIN_SECONDS

    def refused(self, error: Exception) -> bool:
        """Whether the control plane is to be asked after this error of the dispatcher's."""
        if isinstance(error, errors.Unauthenticated | errors.AccessDenied):
            self._known, self.address = False, None  # it will not let us in another time either
            return True
        return isinstance(error, _EXPLAINED)

    def explain(self, error: Exception) -> Exception:
        """What a lost call means: the dispatcher alone is gone, or the whole daemon."""
        if isinstance(error, NotPermitted) or not isinstance(error, Unreachable):
            return error
        self._known, self._again = False, 0.0
        if not _listens(self._control):
            return error
        return errors.ServiceUnavailable(
            "The dispatcher is being restarted. Whether the function ran is not known; try again."
        )


def beside(address: Address) -> Address | None:
    """The dispatcher's address; None when it cannot be told from the control plane's."""
    path = address.socket
    if path is not None:
        return replace(address, target=f"unix:{path.with_name(SOCKET)}")
    host, _, port = address.target.rpartition(":")
    return replace(address, target=f"{host}:{PORT}") if port == str(CONTROL_PORT) else None


def _connect(address: Address) -> socket.socket:
    if address.socket is None:
        host, _, port = address.target.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(REACH_SECONDS)
        made.connect(str(address.socket))
    except BaseException:
        made.close()
        raise
    return made


def _listens(address: Address) -> bool:
    try:
        _connect(address).close()
    except OSError:
        return False
    return True


def _answers(address: Address) -> bool:
    """Whether HTTP/2 is spoken there: an older daemon speaks HTTP/1.1 alone."""
    try:
        with _connect(address) as connection:
            connection.settimeout(REACH_SECONDS)
            connection.sendall(_HELLO)
            answer = b""
            while len(answer) < _FRAME_BYTES:
                data = connection.recv(4096)
                if not data:
                    return False
                answer += data
    except OSError:
        return False
    return answer[3] == _SETTINGS and answer[4:9] == bytes(5)
