"""Makes the codecs of the control protocol, in C and in Python, and their golden vectors from schema.toml.

Run by `./dev generate`; a house test does it with `--check`, which writes nothing and names what is stale. The output
is committed: native/protocol/{include/protocol/wire.h,wire.c}, runtimed/model/wire.py, native/tests/vectors/.
"""

from __future__ import annotations

import pathlib
import sys

from schema import HERE, ROOT, load
from write_c import c_header, c_source
from write_python import python_source
from write_vectors import vectors

VECTORS = ROOT / "native" / "tests" / "vectors"


def outputs() -> dict[pathlib.Path, bytes]:
    schema = load()
    return {
        HERE / "include" / "protocol" / "wire.h": c_header(schema).encode(),
        HERE / "wire.c": c_source(schema).encode(),
        ROOT / "runtimed" / "model" / "wire.py": python_source(schema).encode(),
        **{VECTORS / name: data for name, data in vectors(schema).items()},
    }


def main() -> int:
    made = outputs()
    stale = [path for path, data in made.items() if not path.exists() or path.read_bytes() != data]
    dropped = [path for path in VECTORS.glob("*.*") if path not in made]
    for path in (*stale, *dropped):
        print(path.relative_to(ROOT))
    if "--check" in sys.argv[1:]:
        return 1 if stale or dropped else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made[path])
    for path in dropped:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
