"""What the dispatcher is told of a key: a digest of its bearer token, and signing keys for some days. The secret stays
here.

A signing key is AWS's: HMAC-SHA-256 of the secret over date, region, service and a constant, one after the other
(docs.aws.amazon.com, "Create a signed AWS API request"). It is good for one day, so a dispatcher that is taken over
cannot make signatures for ever.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import date, timedelta

from runtimed.model import wire
from runtimed.model.key import bearer_token

SERVICE = "lambda"
DAYS = (-1, 0, 1, 2)
"""Of today in UTC: callers' clocks may be some minutes off, and the control plane away for a day."""


def token_digest(token: str | bytes) -> bytes:
    return hashlib.sha256(token if isinstance(token, bytes) else token.encode()).digest()


def signing_key(secret: str, day: str, region: str) -> bytes:
    """`day`: YYYYMMDD."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, SERVICE, "aws4_request"):
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    return key


def principal(key_id: str, secret: str, region: str, today: date) -> wire.PutPrincipal:
    days = [f"{today + timedelta(days=offset):%Y%m%d}" for offset in DAYS]
    return wire.PutPrincipal(
        key_id=key_id,
        token=token_digest(bearer_token(key_id, secret)),
        signing=b"".join(day.encode() + signing_key(secret, day, region) for day in days),
    )
