"""The functions beside this file, with an event for each and what its answer must be.

They are written as for Lambda; nothing in their folders knows of runtimed. The tests and the demo deploy them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pathlib
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

FOLDER = pathlib.Path(__file__).resolve().parent
Check = Callable[[Any], None]


class Function(NamedTuple):
    """One function: what to deploy, what to send, and a check that raises AssertionError for a wrong answer."""

    name: str
    says: str
    event: dict[str, Any]
    check: Check
    handler: str = "app.handler"
    memory: int = 128
    timeout: int = 10

    @property
    def path(self) -> pathlib.Path:
        return FOLDER / self.name


def picture(width: int, height: int) -> bytes:
    """A PNG with a gradient, made by hand so that only the function needs an imaging library."""
    rows = b"".join(
        b"\0" + b"".join(bytes((x * 255 // width, y * 255 // height, (x ^ y) & 255)) for x in range(width))
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height from a JPEG's frame header."""
    at = 2
    while data[at + 1] not in (0xC0, 0xC1, 0xC2):
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    height, width = struct.unpack(">HH", data[at + 5 : at + 9])
    return width, height


def check_thumbnail(answer: Any) -> None:
    data = base64.b64decode(answer["body"])
    assert answer["statusCode"] == 200
    assert answer["headers"]["X-Original-Size"] == "640x400"
    assert data.startswith(b"\xff\xd8\xff")
    assert jpeg_size(data) == (96, 60)


def check_matrix(answer: Any) -> None:
    assert answer["size"] == 150
    assert answer["error"] < 1e-9
    assert abs(answer["trace"] - answer["eigenvalue_sum"]) < 1e-6 * answer["trace"]


def check_ranking(answer: Any) -> None:
    assert answer == {
        "nodes": 34,
        "edges": 78,
        "components": 1,
        "top": [
            {"node": 0, "score": 0.437635},
            {"node": 33, "score": 0.304075},
            {"node": 32, "score": 0.145247},
        ],
    }


def check_page(answer: Any) -> None:
    body = answer["body"]
    assert answer["statusCode"] == 200, body
    assert "<title>Invoice 17</title>" in body
    assert "<h1>Blåbær &amp; Söhne</h1>" in body, "escaped once, in UTF-8"
    assert "<td>2</td><td>nuts</td><td>1,234.50</td>" in body


def check_archive(answer: Any) -> None:
    assert answer["intact"] is True
    assert answer["bytes"] == 200 * 20_000
    assert answer["tar_bytes"] < answer["bytes"] / 10
    assert answer["zip_bytes"] < answer["bytes"] / 10
    assert 300 < answer["free_mb"] <= 512


def check_report(answer: Any) -> None:
    assert answer["integrity"] == "ok"
    assert answer["count"] % 4 == 0
    share = answer["count"] // 4
    assert answer["report"] == [
        {"region": "north", "month": 1, "total": 300 * share, "running": 300 * share, "place": 1},
        {"region": "north", "month": 2, "total": 50 * share, "running": 350 * share, "place": 1},
        {"region": "south", "month": 1, "total": 70 * share, "running": 70 * share, "place": 2},
    ]


def check_digest(answer: Any) -> None:
    secret, salt = b"correct horse", bytes.fromhex("00112233445566778899aabbccddeeff")
    digest = secret
    for _ in range(20_000):
        digest = hashlib.sha256(digest).digest()
    assert answer == {
        "pbkdf2": hashlib.pbkdf2_hmac("sha256", secret, salt, 20_000).hex(),
        "scrypt": hashlib.scrypt(secret, salt=salt, n=2**10, r=8, p=1, dklen=32).hex(),
        "chain": digest.hex(),
        "blake2b": hashlib.blake2b(secret * 1000, key=salt, digest_size=32).hexdigest(),
        "hmac": hmac.new(salt, secret, "sha512").hexdigest(),
    }


def check_context(answer: Any) -> None:
    environment = answer["environment"]
    before, after = answer["remaining"]
    assert answer["event"] == {"sleep": 0.02, "text": "grüße"}
    assert answer["function_name"] == environment["AWS_LAMBDA_FUNCTION_NAME"] == "context"
    assert answer["function_version"] == environment["AWS_LAMBDA_FUNCTION_VERSION"] == "$LATEST"
    assert answer["invoked_function_arn"].endswith(":function:context")
    assert answer["memory_limit_in_mb"] == environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "128"
    assert len(answer["aws_request_id"]) == 36
    assert answer["log_group_name"] == environment["AWS_LAMBDA_LOG_GROUP_NAME"] == "/aws/lambda/context"
    assert answer["log_stream_name"] == environment["AWS_LAMBDA_LOG_STREAM_NAME"] != ""
    assert answer["identity"] is None or answer["client"] is None
    assert 10_000 >= before > after > 8_000
    assert before - after >= 19
    assert environment["_HANDLER"] == "app.handler"
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "us-east-1"
    assert environment["LAMBDA_TASK_ROOT"] == answer["directory"] == "/var/task"
    assert environment["LAMBDA_RUNTIME_DIR"] == "/var/runtime"
    assert environment["TZ"] == ":UTC"
    assert environment["AWS_EXECUTION_ENV"] == "AWS_Lambda_python{}.{}".format(*answer["python"])
    assert environment["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    assert answer["file"] == "/var/task/app.py"
    assert "/var/task" in answer["path"]


def check_counter(answer: Any) -> None:
    assert answer["calls"] == answer["noted"] >= 1
    assert answer["clients"] == 1
    assert answer["code_is_read_only"] is True


def check_logs(answer: Any) -> None:
    assert answer == {"word": "herring"}


def check_commands(answer: Any) -> None:
    assert {"dev", "etc", "opt", "proc", "tmp", "usr", "var"} <= set(answer["root"])
    assert not {"home", "srv", "boot", "sys", "media"} & set(answer["root"])
    assert answer["sorted"] == "[1, 2, 3]"
    assert answer["failing"] == [7, "lost"]
    assert answer["pipeline"] == "a"
    assert answer["timed_out"] is True
    assert answer["orphan"] == 0
    assert answer["pid_is_not_1"] is True


def check_concurrency(answer: Any) -> None:
    assert answer["pooled"] == list(range(8))
    assert answer["squares"] == [n * n for n in range(8)]
    assert answer["consumed"] % 8 == 0
    assert answer["naps"] == 20
    assert answer["together"] is True


def check_orders(answer: Any) -> None:
    assert answer == {
        "batchItemFailures": [{"itemIdentifier": "m2"}, {"itemIdentifier": "m3"}, {"itemIdentifier": "m4"}],
        "totals": {"a": "15.14"},
    }


def order(message: str, body: str) -> dict[str, Any]:
    """One message as a queue delivers it."""
    return {
        "messageId": message,
        "receiptHandle": f"handle-{message}",
        "body": body,
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1545082649183"},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:orders",
        "awsRegion": "us-east-1",
    }


SALES = [
    {"region": "north", "month": 1, "cents": 100},
    {"region": "north", "month": 1, "cents": 200},
    {"region": "north", "month": 2, "cents": 50},
    {"region": "south", "month": 1, "cents": 70},
]
LINES = [{"article": "bolt", "count": 2}, {"article": "schraubenschlüssel", "count": 1}]

CATALOGUE = (
    Function(
        "thumbnail", "Pillow: a picture in, a JPEG out",
        {"body": base64.b64encode(picture(640, 400)).decode(), "queryStringParameters": {"width": "96"}},
        check_thumbnail, memory=256,
    ),
    Function("matrix", "numpy: a linear system", {"size": 150}, check_matrix, memory=512),
    Function("ranking", "networkx: the centre of a graph", {"graph": "karate"}, check_ranking, memory=256),
    Function(
        "page", "jinja2: an invoice in HTML",
        {"number": 17, "customer": "Blåbær & Söhne",
         "lines": [{"text": "bolts", "cents": 12, "count": 10}, {"text": "nuts", "cents": 12345, "count": 10}]},
        check_page,
    ),
    Function("archive", "tar.gz and zip of a tree in /tmp", {"files": 200, "size": 20_000}, check_archive, timeout=30),
    Function("report", "SQLite in /tmp: a report by SQL", {"sales": SALES}, check_report),
    Function(
        "digest", "hashlib: PBKDF2, scrypt, SHA-256, BLAKE2",
        {"secret": "correct horse", "salt": "00112233445566778899aabbccddeeff"}, check_digest, timeout=30,
    ),
    Function("context", "what a function learns of its place", {"sleep": 0.02, "text": "grüße"}, check_context),
    Function("counter", "globals and /tmp, kept while warm", {}, check_counter),
    Function("logs", "print, logging, descriptors, shells", {"word": "herring"}, check_logs),
    Function("commands", "other programs: shells, pipes, time-outs", {}, check_commands),
    Function("concurrency", "threads, a pool, an event loop", {"count": 8}, check_concurrency),
    Function(
        "orders", "a queue's batch, with the failed ones named",
        {"Records": [
            order("m1", json.dumps({"id": "a", "lines": LINES})),
            order("m2", "not json"),
            order("m3", json.dumps({"id": "b", "lines": []})),
            order("m4", json.dumps({"id": "c", "lines": [{"article": "anvil", "count": 1}]})),
        ]},
        check_orders, handler="handlers.queue.receive",
    ),
)  # fmt: skip

FAILURES = Function("failures", "every way to fail", {"kind": "nothing"}, lambda answer: None, timeout=3)
