"""Archives: the same bytes from the same files, and nothing from outside."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from runtimed.client import package
from runtimed.client.errors import ClientError
from runtimed.model import quotas


def names(data: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(data)).namelist()


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_a_directory(tmp_path: Path) -> None:
    tree(tmp_path, app="1", inner__mod="2", inner__deep__data="3")
    for hidden in ("__pycache__", ".git", ".venv", "inner/__pycache__"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "file").write_text("")
    (tmp_path / "old.pyc").write_text("")
    (tmp_path / ".env").write_text("kept")
    assert names(package.archive(package.files(tmp_path))) == [".env", "app", "inner/deep/data", "inner/mod"]


def test_the_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "one", b="1", a="2"), tree(tmp_path / "two", a="2", b="1")
    os.utime(two / "a", (0, 0))
    (two / "a").chmod(0o600)
    assert package.archive(package.files(one)) == package.archive(package.files(two))
    (two / "a").chmod(0o755)
    changed = package.archive(package.files(two))
    assert changed != package.archive(package.files(one))
    entry = zipfile.ZipFile(io.BytesIO(changed)).getinfo("a")
    assert (entry.external_attr >> 16, entry.date_time) == (0o100755, package.EPOCH)


def test_a_file_goes_alone(tmp_path: Path) -> None:
    tree(tmp_path, other="x")
    (tmp_path / "app.py").write_text("")
    assert names(package.archive(package.files(tmp_path / "app.py"))) == ["app.py"]


def test_links_inside_are_followed(tmp_path: Path) -> None:
    tree(tmp_path, real__mod="1")
    (tmp_path / "again").symlink_to("real")
    (tmp_path / "file").symlink_to("real/mod")
    data = package.archive(package.files(tmp_path))
    assert names(data) == ["again/mod", "file", "real/mod"]
    assert zipfile.ZipFile(io.BytesIO(data)).read("again/mod") == b"1"


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("/etc/passwd", "outside"),
        ("/etc", "outside"),
        ("../secret", "outside"),
        ("nowhere", "nowhere"),
        (".", "leads back"),
    ],
)
def test_links_that_cannot_be_followed(tmp_path: Path, target: str, sentence: str) -> None:
    (tmp_path / "secret").write_text("s")
    code = tree(tmp_path / "code", app="1")
    (code / "link").symlink_to(target)
    with pytest.raises(ClientError, match=sentence):
        package.files(code)


def test_a_link_as_the_path_itself_is_what_it_names(tmp_path: Path) -> None:
    tree(tmp_path / "code", app="1")
    (tmp_path / "link").symlink_to("code")
    assert list(package.files(tmp_path / "link")) == ["app"]


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ClientError, match="neither a file nor a directory"):
        package.files(tmp_path)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, a="12", b="34")
    monkeypatch.setattr(quotas, "PACKAGE_UNZIPPED_BYTES", 3)
    with pytest.raises(ClientError, match="unzipped"):
        package.archive(package.files(tmp_path))
    monkeypatch.setattr(quotas, "PACKAGE_UNZIPPED_BYTES", 4)
    monkeypatch.setattr(quotas, "PACKAGE_ENTRIES", 1)
    with pytest.raises(ClientError, match="2 files"):
        package.archive(package.files(tmp_path))


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    package.archive(package.files(tree(tmp_path, a="12", b="345")), lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (5, 5)]


def test_ready_archives(tmp_path: Path) -> None:
    for content, sentence in ((b"", "empty"), (b"text", "not a zip")):
        (tmp_path / "x.zip").write_bytes(content)
        with pytest.raises(ClientError, match=sentence):
            package.read_zip(tmp_path / "x.zip")
