"""Where the daemon is, and the key for it: what was said explicitly, then the environment, then the default socket."""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec import Struct

from runtimed.client.errors import ClientError

DEFAULT = "unix:/run/runtimed/control.sock"
ADDRESS_VARIABLE = "RUNTIMED_ADDRESS"
KEY_VARIABLE = "RUNTIMED_KEY"

_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")


class Address(Struct, frozen=True):
    """Where to connect, as gRPC spells it, and the key that TCP needs."""

    target: str
    key: str = ""

    @property
    def socket(self) -> Path | None:
        """The unix socket's path, when it is one."""
        return Path(self.target.removeprefix("unix:")) if self.target.startswith("unix:") else None


def find(address: str | None = None, key: str | None = None, key_file: str | os.PathLike[str] | None = None) -> Address:
    """ClientError for what is not an address, or a key file that cannot be read."""
    target = _target(address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT)
    if key is None and key_file is not None:
        try:
            key = Path(key_file).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise ClientError(f"cannot read the key file {key_file}: {error}") from None
    if key is None:
        key = os.environ.get(KEY_VARIABLE, "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise ClientError(
            "the key has characters that no key has: pass a token of `runtimectl keys create`, or the content of "
            "STATE/keys/control.key"
        )
    return Address(target, key)


def _target(text: str) -> str:
    if text.startswith("/"):
        return f"unix:{text}"
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("///") else path
        if not path:
            raise ClientError(f"{text!r} names no socket: use unix:/path/to/control.sock")
        return f"unix:{Path(path).absolute()}"
    match = _HOST_PORT.fullmatch(text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ClientError(f"{text!r} is not an address: use unix:/path/to/control.sock or host:port")
    return text
