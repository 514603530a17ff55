"""What the dispatcher is told of a key, against botocore's signer."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import struct

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from runtimed.dispatch.principals import principal, signing_key

KEY_ID, SECRET, REGION = "RTEXAMPLEKEY00000001", "s" * 40, "eu-central-1"


def test_signing_keys_are_those_of_botocore() -> None:
    signer = SigV4Auth(Credentials(KEY_ID, SECRET), "lambda", REGION)
    request = AWSRequest("POST", "http://127.0.0.1/")
    request.context["timestamp"] = "20260228T120000Z"
    mine = hmac.new(signing_key(SECRET, "20260228", REGION), b"what is signed", hashlib.sha256).hexdigest()
    assert mine == signer.signature("what is signed", request)


def test_a_principal_is_good_for_four_days_and_has_no_secret() -> None:
    told = principal(KEY_ID, SECRET, REGION, dt.date(2026, 2, 28))
    days = dict(struct.iter_unpack("8s32s", told.signing))
    assert list(days) == [b"20260227", b"20260228", b"20260301", b"20260302"]
    assert all(key == signing_key(SECRET, day.decode(), REGION) for day, key in days.items())
    assert told.key_id == KEY_ID
    assert told.token == hashlib.sha256(f"{KEY_ID}.{SECRET}".encode()).digest()
    assert SECRET.encode() not in told.signing + told.token
