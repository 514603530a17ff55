"""Writes a directory tree to /tmp, packs it as tar.gz and as zip, and unpacks both again to compare."""

import filecmp
import hashlib
import os
import pathlib
import shutil
import tarfile
import tempfile
import zipfile


def make_tree(root, files, size):
    for number in range(files):
        path = root / f"part{number % 7}" / f"file{number:04d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        block = hashlib.sha256(str(number).encode()).hexdigest().encode() + b"\n"
        path.write_bytes((block * (size // len(block) + 1))[:size])
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def same(a, b):
    compared = filecmp.dircmp(a, b)
    if compared.left_only or compared.right_only or compared.diff_files or compared.funny_files:
        return False
    return all(same(os.path.join(a, name), os.path.join(b, name)) for name in compared.common_dirs)


def handler(event, context):
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        source = work / "source"
        total = make_tree(source, int(event.get("files", 200)), int(event.get("size", 20_000)))
        tar = shutil.make_archive(str(work / "packed"), "gztar", source)
        packed = shutil.make_archive(str(work / "packed"), "zip", source)
        with tarfile.open(tar) as archive:
            archive.extractall(work / "from_tar")
        with zipfile.ZipFile(packed) as archive:
            broken = archive.testzip()
            archive.extractall(work / "from_zip")
        return {
            "bytes": total,
            "tar_bytes": os.path.getsize(tar),
            "zip_bytes": os.path.getsize(packed),
            "intact": broken is None and same(source, work / "from_tar") and same(source, work / "from_zip"),
            "free_mb": shutil.disk_usage("/tmp").free >> 20,
        }
