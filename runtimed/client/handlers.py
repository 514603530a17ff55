"""Finds a function's handler in its archive, without running any of it."""

from __future__ import annotations

import ast
import io
import re
import warnings
import zipfile

FUNCTIONS = ("handler", "lambda_handler")
"""The names that a handler usually has. For a file called lambda_function it is the other way round."""
MODULES = ("app", "lambda_function", "main", "index", "handler", "function")
"""The files in which to look first."""

_EXPORTED = re.compile(
    r"^\s*export\s+(?:const|let|var|(?:async\s+)?function\*?)\s+handler\b|^\s*export\s*\{[^}]*\bhandler\b|\bexports\.handler\s*=",
    re.MULTILINE,
)


def guess(code: bytes) -> str | None:
    """MODULE.FUNCTION, when the archive's top level leaves no doubt. Python's, else JavaScript's."""
    try:
        with zipfile.ZipFile(io.BytesIO(code)) as archive:
            top = [name for name in archive.namelist() if "/" not in name]
            sources = {name.removesuffix(".py"): archive.read(name) for name in top if name.endswith(".py")}
            scripts = {name: archive.read(name).decode(errors="replace") for name in top if is_script(name)}
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError):
        return None  # the daemon says what is wrong with it
    if scripts and not sources:
        exporting = [name.rpartition(".")[0] for name, text in scripts.items() if _EXPORTED.search(text)]
        return f"{exporting[0]}.handler" if len(exporting) == 1 else None
    known = [module for module in MODULES if module in sources]
    others = sorted(sources.keys() - set(MODULES))
    for module in known:
        found = _handler(module, sources[module])
        if found:
            return found
    candidates = [found for module in others if (found := _handler(module, sources[module]))]
    return candidates[0] if len(candidates) == 1 else None


def is_script(name: str) -> bool:
    """A file of JavaScript, by its name."""
    return name.endswith((".js", ".mjs", ".cjs"))


def present(handler: str, code: bytes) -> bool:
    """Whether the archive has the file that a handler names."""
    module = handler.rpartition(".")[0].replace(".", "/")
    try:
        with zipfile.ZipFile(io.BytesIO(code)) as archive:
            names = set(archive.namelist())
    except zipfile.BadZipFile:
        return True
    return any(
        name in names or any(n.startswith(name) for n in names) for name in (f"{module}.py", f"{module}/", f"{module}.")
    )


def _handler(module: str, source: bytes) -> str | None:
    defined = _defined(source)
    order = FUNCTIONS[::-1] if module == "lambda_function" else FUNCTIONS
    return next((f"{module}.{name}" for name in order if name in defined), None)


def _defined(source: bytes) -> set[str]:
    """The names that a module binds at its top level."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # Perhaps it is written for a newer Python, perhaps it is wrong: the runtime will say so when it imports it.
        text = source.decode(errors="replace")
        return set(re.findall(r"^(?:async\s+)?def\s+(\w+)\s*\(", text, re.MULTILINE))
    names: set[str] = set()
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names.update(target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names.update((alias.asname or alias.name).split(".")[0] for alias in aliases)
    return names
