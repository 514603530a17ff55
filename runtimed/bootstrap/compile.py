"""Compiles a package: every .py below /var/task, to the bytecode of the interpreter that runs this.

Run in a jail as `<interpreter> -I -S compile.py`, with the unpacked package at /var/task, read-only. The bytecode goes
to standard output; the control plane (deployment/compile.py) writes it into the package. It comes from a process that
read files of the function's: the reader checks lengths, paths and the summary as it would a stranger's.

The stream is frames, integers little-endian:

    u32 length of path | path | u32 length of data | data

path: UTF-8, relative to /var/task, always `<directory>/__pycache__/<module>.cpython-3XX.pyc` (without the first part at
the top); data: the file's content. Length of path 0: the last frame, whose data is a JSON object:

    {"version": 1, "tag": "cpython-311", "files": compiled, "bytes": of data, "skipped_count": n,
     "skipped": [{"path": source, "line": number or null, "message": text}, ...], "complete": true or false}

A stream that ends without it was cut (time, memory, a crash of the compiler): what came before is whole and may be
used. complete is false when a limit ended the walk. skipped names at most SKIPPED_MAX; their modules are compiled when
they are imported, where the function gets the error.

Files are `unchecked-hash` .pycs: Python takes them without looking at the source, which nobody can change.
"""

import importlib.util
import json
import marshal
import os
import struct
import sys
import warnings

TASK_ROOT = "/var/task"

# A package is at most 250 MB unzipped; these are for what a hostile one could make of that.
FILES_MAX = 20000
SOURCE_MAX = 8 << 20
BYTES_MAX = 256 << 20
PATH_MAX = 1024
DEPTH_MAX = 64
SKIPPED_MAX = 100
MESSAGE_MAX = 200

_U32 = struct.Struct("<I")
# importlib's mark for a file that is checked against its source's hash (1), but not at run time (no 2).
_UNCHECKED_HASH = _U32.pack(0b01)


class Skipped(Exception):
    def __init__(self, message, line=None):
        Exception.__init__(self, message)
        self.line = line


class LimitReached(Exception):
    pass


def sources(root):
    """Paths of sources below the root, relative to it, in a fixed order. Symbolic links are not followed."""
    pending = [("", 0)]
    while pending:
        directory, depth = pending.pop()
        if depth > DEPTH_MAX:
            continue
        with os.scandir(os.path.join(root, directory)) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = directory + entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    pending.append((path + "/", depth + 1))
            elif entry.name.endswith(".py") and entry.is_file(follow_symlinks=False):
                yield path


def target_of(path):
    """Where importlib looks for the bytecode of a source; "" when the name cannot be told."""
    try:
        target = importlib.util.cache_from_source(path, optimization="")
        return target if len(target.encode("utf-8")) <= PATH_MAX else ""
    except (UnicodeEncodeError, NotImplementedError):
        return ""


def bytecode_of(root, path):
    """The .pyc's content; raises Skipped."""
    full = os.path.join(root, path)
    try:
        if os.stat(full).st_size > SOURCE_MAX:
            raise Skipped("larger than %d bytes" % SOURCE_MAX)
        with open(full, "rb") as file:
            source = file.read()
        # The name is what traces show: where the function will find the file.
        code = compile(source, full, "exec", dont_inherit=True)
        return b"".join(
            [importlib.util.MAGIC_NUMBER, _UNCHECKED_HASH, importlib.util.source_hash(source), marshal.dumps(code)]
        )
    except SyntaxError as error:
        raise Skipped(str(error.msg), error.lineno) from None
    except (OSError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise Skipped("%s: %s" % (type(error).__name__, error)) from None


def write_frame(out, path, data):
    name = path.encode("utf-8")
    out.write(b"".join([_U32.pack(len(name)), name, _U32.pack(len(data)), data]))


def printable(text):
    return text.encode("utf-8", "backslashreplace").decode("utf-8")[:MESSAGE_MAX]


def compile_all(root, out):
    """Writes every frame but the last; returns that one's data."""
    summary = {
        "version": 1,
        "tag": sys.implementation.cache_tag,
        "files": 0,
        "bytes": 0,
        "skipped_count": 0,
        "skipped": [],
        "complete": True,
    }
    seen = 0
    try:
        for path in sources(root):
            seen += 1
            if seen > FILES_MAX:
                raise LimitReached
            try:
                target = target_of(path)
                if not target:
                    raise Skipped("the name cannot be told")
                data = bytecode_of(root, path)
            except Skipped as skipped:
                summary["skipped_count"] += 1
                if len(summary["skipped"]) < SKIPPED_MAX:
                    named = {"path": printable(path), "line": skipped.line, "message": printable(str(skipped))}
                    summary["skipped"].append(named)
                continue
            if summary["bytes"] + len(data) > BYTES_MAX:
                raise LimitReached
            write_frame(out, target, data)
            summary["files"] += 1
            summary["bytes"] += len(data)
    except LimitReached:
        summary["complete"] = False
    return summary


def main():
    warnings.simplefilter("ignore")  # about the function's code, for nobody to read here
    out = sys.stdout.buffer
    summary = compile_all(TASK_ROOT, out)
    write_frame(out, "", json.dumps(summary).encode("utf-8"))
    out.flush()


if __name__ == "__main__":
    main()
