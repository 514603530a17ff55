"""Signatures of requests: those that botocore makes are good, and every change of what they cover is noticed."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import struct
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.native.test_http_twins import PROGRAM, Reader

SECRET = "s3cret/" + "x" * 33
KEY_ID = "RTEXAMPLEKEY00000001"
NOT, INCOMPLETE, EXPIRED, HEADERS, QUERY = "12345"


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    if not PROGRAM.exists():
        pytest.skip("the sanitizer build is missing; ./dev test makes it")
    made = Reader()
    yield made
    made.close()


def derived(secret: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    return key


class Signed:
    """A request as boto3 would send it."""

    def __init__(self, path: str, body: bytes, headers: dict[str, str], region: str = "us-east-1") -> None:
        request = AWSRequest("POST", f"http://127.0.0.1:7402{path}", headers=headers, data=body)
        SigV4Auth(Credentials(KEY_ID, SECRET), "lambda", region).add_auth(request)
        self.path, self.body = path, body
        self.headers = {"Host": "127.0.0.1:7402", **dict(request.headers.items())}
        stamp = self.headers["X-Amz-Date"]
        moment = dt.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
        self.seconds = int(moment.timestamp())
        self.key = derived(SECRET, stamp[:8], region, "lambda")

    def ask(self, reader: Reader) -> str:
        head = f"POST {self.path} HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in self.headers.items()
        )
        data = self.key + struct.pack("=q", self.seconds) + head.encode("latin-1") + b"\r\n" + self.body
        return reader.ask("S", data)[0]


PATHS = st.builds(
    lambda name, query: f"/2015-03-31/functions/{quote(name, safe='')}/invocations" + (f"?{query}" if query else ""),
    st.text(min_size=1, max_size=40).filter(lambda name: name not in (".", "..")),
    st.sampled_from(["", "Qualifier=%24LATEST", "Qualifier=1", "b=2&a=1&a=0", "a", "a=&b=", "x=%20%2F~-_.%C3%A4"]),
)
FIELDS = st.dictionaries(
    st.sampled_from(["X-Amz-Log-Type", "X-Amz-Invocation-Type", "x-custom", "Content-Type", "X-Amzn-Trace-Id"]),
    st.text("abc XYZ019=;,-/\"'()", max_size=30).map(str.strip),
)


@given(path=PATHS, body=st.binary(max_size=200), headers=FIELDS)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_botocore_signs_is_good(reader: Reader, path: str, body: bytes, headers: dict[str, str]) -> None:
    signed = Signed(path, body, headers)
    assert signed.ask(reader) == "good"


@pytest.fixture
def signed() -> Signed:
    return Signed("/2015-03-31/functions/f/invocations?Qualifier=1", b'{"a": 1}', {"X-Amz-Log-Type": "Tail"})


def test_each_change_is_noticed(reader: Reader, signed: Signed) -> None:
    assert signed.ask(reader) == "good"
    changes: list[tuple[str, object]] = [
        ("path", signed.path.replace("/f/", "/g/")), ("path", signed.path.replace("=1", "=2")), ("body", b'{"a": 2}'),
        ("path", signed.path + "&x=y"), ("key", bytes(32)),
        ("headers", {**signed.headers, "X-Amz-Log-Type": "None"}), ("headers", {**signed.headers, "Host": "other"}),
        ("headers", {**signed.headers, "x-amz-log-type": "again"}),
    ]  # fmt: skip
    for name, value in changes:
        kept = getattr(signed, name)
        setattr(signed, name, value)
        assert signed.ask(reader) == "wrong", (name, value)
        setattr(signed, name, kept)
    assert signed.ask(reader) == "good"


def test_time(reader: Reader, signed: Signed) -> None:
    signed.seconds += 300
    assert signed.ask(reader) == "good"
    signed.seconds += 1
    assert signed.ask(reader) == EXPIRED
    signed.seconds -= 602
    assert signed.ask(reader) == EXPIRED


def test_claims_that_lack_something(reader: Reader, signed: Signed) -> None:
    whole = signed.headers["Authorization"]
    assert "SignedHeaders=host;x-amz-date;x-amz-log-type" in whole
    for old, new, error in (
        ("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA512 ", NOT),
        ("AWS4-HMAC-SHA256 ", "Bearer ", NOT),
        ("Credential=", "Credentials=", INCOMPLETE),
        ("/aws4_request", "/aws4", INCOMPLETE),
        ("/aws4_request", "/aws4_request/x", INCOMPLETE),
        (KEY_ID, "", INCOMPLETE),
        (KEY_ID, "x" * 33, INCOMPLETE),
        ("Signature=", "Signature=0", INCOMPLETE),
        ("Signature=", "Signature=G", INCOMPLETE),
        (", Signature", ", Signature=00, Signature", INCOMPLETE),
        ("SignedHeaders=host;", "SignedHeaders=", HEADERS),
        ("SignedHeaders=host;x-amz-date;", "SignedHeaders=host;", HEADERS),
        ("SignedHeaders=host;", "SignedHeaders=x-amz-date;host;", HEADERS),
        ("SignedHeaders=host;", "SignedHeaders=host;host;", HEADERS),
        ("SignedHeaders=host;", "SignedHeaders=host;;", HEADERS),
        ("SignedHeaders=host;", "SignedHeaders=Host;", "wrong"),
        ("SignedHeaders=host;", "SignedHeaders=host;nowhere;", HEADERS),
    ):
        assert old in whole
        signed.headers["Authorization"] = whole.replace(old, new)
        found = signed.ask(reader)
        assert found == error or (error == "wrong" and found in ("wrong", HEADERS)), (old, new, found)
    signed.headers["Authorization"] = whole
    for date in ("20260102", "20261399T000000Z", "2026-01-02T03:04:05", signed.headers["X-Amz-Date"].lower()):
        signed.headers["X-Amz-Date"] = date
        assert signed.ask(reader) == INCOMPLETE
