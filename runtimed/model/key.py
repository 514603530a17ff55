"""Keys: what programs show that call over TCP, as a signature of AWS's version 4 or as a bearer token."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, field

from runtimed.model import quotas
from runtimed.model.shape import Shape

KEY_ID_HEAD = "RT"
KEY_ID_TAIL_CHARACTERS = 18
"""As long as AWS's, whose ids begin with AKIA: programs check that."""
SECRET_CHARACTERS = 40
"""As many as AWS's have; of letters and digits these are 238 bits."""

KeyId = Annotated[
    str,
    Meta(
        pattern=rf"^{KEY_ID_HEAD}[A-Z0-9]{{{KEY_ID_TAIL_CHARACTERS}}}$",
        description=f"a key's id: {KEY_ID_HEAD} and {KEY_ID_TAIL_CHARACTERS} capital letters and digits.",
    ),
]
KeyDescription = Annotated[
    str,
    Meta(
        max_length=quotas.DESCRIPTION_CHARACTERS,
        description=f"at most {quotas.DESCRIPTION_CHARACTERS} characters.",
    ),
]


def bearer_token(key_id: str, secret: str) -> str:
    """One string that holds the whole key, for `Authorization: Bearer`."""
    return f"{key_id}.{secret}"


class Key(Shape, frozen=True, kw_only=True):
    """A key without its secret."""

    key_id: str
    description: str = ""
    created_at: datetime
    last_modified: datetime


class CreateKeyRequest(Shape, frozen=True, kw_only=True):
    description: KeyDescription = ""


class CreatedKey(Shape, frozen=True, kw_only=True):
    """A new key. The secret and the token, which contains it, are told this once."""

    key: Key
    secret: str
    token: str
    endpoint: str = ""
    """Where functions are invoked over TCP, as a URL; empty: the node does not listen for that."""
    region: str = ""
    """What signatures must name."""


class ListKeysRequest(Shape, frozen=True, kw_only=True):
    """No members."""


class ListKeysResponse(Shape, frozen=True, kw_only=True):
    """All of them, the oldest first."""

    keys: list[Key] = field(default_factory=list)


class RevokeKeyRequest(Shape, frozen=True, kw_only=True):
    key_id: KeyId


class RevokeKeyResponse(Shape, frozen=True, kw_only=True):
    """No members."""
