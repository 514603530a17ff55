"""The code store: uploads, trees that are whole or absent, removal."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from runtimed.store.ledger import Size
from runtimed.store.packages import CodeStore, package_key


@pytest.fixture
def code(tmp_path: Path) -> CodeStore:
    return CodeStore(tmp_path)


def keep(code: CodeStore, data: bytes) -> str:
    upload = code.upload(1 << 20)
    assert upload.write(data)
    digest = upload.finish()
    code.keep_zip(upload, digest)
    return digest


def test_an_upload_is_kept_under_its_hash(code: CodeStore) -> None:
    digest = keep(code, b"the zip")
    assert digest == hashlib.sha256(b"the zip").hexdigest()
    assert code.zip_path(digest).read_bytes() == b"the zip"
    keep(code, b"the zip")
    assert code.ledger.used == Size(4096, 1), "kept once, by whole blocks"
    assert list(code.staging.iterdir()) == []


def test_an_upload_above_the_limit_stops(code: CodeStore) -> None:
    upload = code.upload(10)
    assert upload.write(b"12345")
    assert not upload.write(b"678901")
    upload.drop()
    assert list(code.staging.iterdir()) == []


def test_a_tree_is_placed_whole_and_the_first_one_stays(code: CodeStore) -> None:
    key = package_key("0" * 64, "python3.11")
    for content in (b"first", b"second"):
        staged = code.stage()
        staged.mkdir()
        (staged / "app.py").write_bytes(content)
        code.place(staged, key)
        assert not staged.exists()
    assert code.has_tree(key)
    assert (code.tree_path(key) / "app.py").read_bytes() == b"first"


def test_keys_differ_by_code_and_runtime() -> None:
    keys = {package_key(zipped * 64, runtime) for zipped in "ab" for runtime in ("python3.11", "python3.12")}
    assert len(keys) == 4


def test_staging_is_garbage_at_the_start(code: CodeStore, tmp_path: Path) -> None:
    staged = code.stage()
    (staged / "deep").mkdir(parents=True)
    code.stage()
    (code.staging / "half.zip").write_bytes(b"x")
    (code.staging / "link").symlink_to(tmp_path)
    code.clear_staging()
    assert list(code.staging.iterdir()) == []
    assert tmp_path.exists()


def test_removal(code: CodeStore) -> None:
    digest, key = keep(code, b"x"), package_key("1" * 64, "python3.11")
    staged = code.stage()
    staged.mkdir()
    code.place(staged, key)
    assert code.contents() == ({digest}, {key})
    code.remove_zip(digest)
    code.remove_tree(key)
    assert code.contents() == (set(), set())
    assert list(code.staging.iterdir()) == []


@pytest.mark.parametrize("name", ["..", "../../etc/passwd", "A" * 64, "a" * 63, ""])
def test_only_digests_become_paths(code: CodeStore, name: str) -> None:
    for use in (code.zip_path, code.tree_path):
        with pytest.raises(ValueError, match="not a sha256"):
            use(name)
