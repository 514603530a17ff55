"""Finding the handler without running anything."""

from __future__ import annotations

import io
import zipfile

import pytest

from runtimed.client.handlers import guess, present

H = "def handler(event, context): ...\n"
L = "def lambda_handler(event, context): ...\n"


def package(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, source in files.items():
            archive.writestr(name.replace("__", "/") + ".py", source)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("files", "handler"),
    [
        ({"thumb": H}, "thumb.handler"),
        ({"thumb": L}, "thumb.lambda_handler"),
        ({"thumb": H + L}, "thumb.handler"),
        ({"lambda_function": H + L}, "lambda_function.lambda_handler"),
        ({"app": H, "lambda_function": L, "main": H}, "app.handler"),
        ({"app": "x = 1\n", "lambda_function": L, "main": H}, "lambda_function.lambda_handler"),
        ({"settings": "x = 1\n", "main": H}, "main.handler"),
        ({"one": H, "two": "x = 1\n"}, "one.handler"),
        ({"one": H, "two": H}, None),
        ({"app": "def main(): ...\n"}, None),
        ({"package__app": H}, None),
        ({"app": "async def handler(event, context): ...\n"}, "app.handler"),
        ({"app": "handler = make()\n"}, "app.handler"),
        ({"app": "handler: object = make()\n"}, "app.handler"),
        ({"app": "from framework import adapter as handler\n"}, "app.handler"),
        ({"app": "class Handler: ...\n\nhandler = Handler()\n"}, "app.handler"),
        ({"app": "if True:\n    def handler(): ...\n"}, None),
        ({"app": H + "this is no python\n"}, "app.handler"),
        ({"app": "x = (\n"}, None),
        ({"app": "x = '\\d'\n" + H}, "app.handler"),
        ({"handler": "def handler(event, context): ..."}, "handler.handler"),
    ],
)
def test_guesses(files: dict[str, str], handler: str | None) -> None:
    assert guess(package(**files)) == handler


def test_what_is_no_archive() -> None:
    assert guess(b"no") is None
    assert present("app.handler", b"no")


@pytest.mark.parametrize(
    ("handler", "there"),
    [
        ("app.handler", True),
        ("inner.mod.handler", True),
        ("inner/mod.handler", True),
        ("inner.handler", True),
        ("ap.handler", False),
    ],
)
def test_whether_a_handler_has_its_file(handler: str, there: bool) -> None:
    assert present(handler, package(app=H, inner__mod=H, inner____init__=H)) is there
