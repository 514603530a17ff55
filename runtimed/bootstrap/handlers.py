"""From a handler's name to the function itself: imports the module that the name points at."""

import marshal
import sys
from importlib import _bootstrap_external, machinery

from .errors import (
    BUILT_IN_CONFLICT,
    HANDLER_NOT_FOUND,
    IMPORT_MODULE,
    MALFORMED_HANDLER,
    SYNTAX,
    Fault,
)

# What compile.py writes first: the interpreter's mark, and "to be taken without a look at the source".
# importlib.util, which has the mark too, imports typing and more in some versions.
MARK = _bootstrap_external.MAGIC_NUMBER + b"\1\0\0\0"
TAG = sys.implementation.cache_tag
# A module of the name in one of these forms goes before one that is a .py; a directory may be a package.
PREFERRED = tuple(suffix.encode() for suffix in ["", *machinery.EXTENSION_SUFFIXES])


class Prepared:
    """What an import makes beside the module, made in the zygote and filled in by the environment."""

    def __init__(self):
        self.loader = machinery.SourceFileLoader("", "")
        self.spec = machinery.ModuleSpec("", self.loader)
        self.spec.has_location = True
        self.module = type(sys)("")
        vars(self.module).update(__file__="", __cached__="", __package__="", __loader__=self.loader, __spec__=self.spec)


prepared = Prepared()


def load(name, native):
    """`module.function`, `package.module.function` or `package/module.function`.

    What the function's code raises while it is imported comes through, except ImportError and SyntaxError, which are
    told as faults; so does SystemExit.
    """
    try:
        module_name, function_name = name.rsplit(".", 1)
    except ValueError as error:
        raise Fault(MALFORMED_HANDLER, "Bad handler '%s': %s" % (name, error)) from None
    if module_name.split(".")[0] in sys.builtin_module_names:
        raise Fault(BUILT_IN_CONFLICT, "Cannot use built-in module %s as a handler module" % module_name)
    try:
        module = import_compiled(module_name, native) or import_any(module_name.replace("/", "."))
    except ImportError as error:
        raise Fault(IMPORT_MODULE, "Unable to import module '%s': %s" % (module_name, error)) from None
    except SyntaxError as error:
        where = '  File "%s" Line %s\n    %s' % (error.filename, error.lineno, error.text)
        raise Fault(SYNTAX, "Syntax error in module '%s': %s" % (module_name, error), [where]) from None
    try:
        return getattr(module, function_name)
    except AttributeError:
        message = "Handler '%s' missing on module '%s'" % (function_name, module_name)
        raise Fault(HANDLER_NOT_FOUND, message) from None


def import_any(name):
    __import__(name)  # unlike importlib.import_module it leaves no frames in traces
    return sys.modules[name]


def import_compiled(name, native):
    """The common case, a module of one file at the root of the package, compiled at deployment: what importlib would
    do with it, but without importlib, whose code and caches every environment would have to copy page by page. None
    when it is not that case.
    """
    if name in sys.modules or not name.isidentifier():
        return None
    found = native.read_compiled(sys.path[0], name, TAG, MARK, PREFERRED)
    if found is None:
        return None
    data, path, cached = found
    return execute(name, path, cached, marshal.loads(data))


def rehearse(name, data):
    """Executes the module's code, and forgets it."""
    module = prepared.module
    before = set(vars(module))
    execute(name, "/var/task/%s.py" % name, "", marshal.loads(data))
    del sys.modules[name]
    for added in [added for added in vars(module) if added not in before]:
        delattr(module, added)


def execute(name, path, cached, code):
    module, spec, loader = prepared.module, prepared.spec, prepared.loader
    loader.name = spec.name = module.__name__ = name
    loader.path = spec.origin = module.__file__ = path
    spec._cached = module.__cached__ = cached
    spec._initializing = True  # circular imports look at it
    sys.modules[name] = module
    try:
        exec(code, vars(module))
    finally:
        spec._initializing = False
    return sys.modules[name]
