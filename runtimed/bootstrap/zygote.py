"""The program of a zygote: an interpreter with our runtime imported and warm, from which environments are forked.

Run by the launcher as `<interpreter> -I -S /var/runtime/bootstrap/zygote.py`, as root of a user namespace of its own;
descriptor 3 is its socket to the launcher, and /var/runtime/native holds the extension `_zygote`. No code from outside
ever runs here. LD_LIBRARY_PATH has to be in the environment it is executed with (the dynamic linker reads it once).

What is imported here costs every fork (about 15 microseconds a megabyte) and saves every function that uses it the
import: json, logging and what those need anyway, and no more.

All environments of one zygote share its string hash seed and its address layout; `random` is seeded anew in each.
"""

import sys

# What a managed runtime has set before any code of the function's runs; the rest comes with START.
CONSTANT_VARIABLES = {
    "LANG": "en_US.UTF-8",
    "TZ": ":UTC",
    "LAMBDA_RUNTIME_DIR": "/var/runtime",
    "LD_LIBRARY_PATH": "/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
    "PATH": "/usr/local/bin:/usr/bin/:/bin:/opt/bin",
    "PYTHONPATH": "/var/runtime",
    "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
    "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
    # Lambda's /etc/passwd names its user; here each environment has a uid of its own, so variables tell who asks.
    "HOME": "/tmp",
    "LOGNAME": "sbx_user1051",
}

TASK_ROOT = "/var/task"
LAYER_ROOT = "/opt"
LAUNCHER = 3


def package(directory, name="_runtimed"):
    """Makes the directory's modules importable as a package of that name, without a search path entry."""
    import types

    module = types.ModuleType(name, "The runtime's own modules.")
    module.__path__ = [directory]
    sys.modules[name] = module
    return module


def import_native(directory):
    """The extension, which is not left on the search path for functions to find."""
    sys.path.insert(0, directory)
    try:
        import _zygote
    finally:
        sys.path.remove(directory)
        sys.path_importer_cache.pop(directory, None)
    return _zygote


def set_variables():
    """Replaces whatever environment the launcher gave."""
    import os
    import time

    os.environ.clear()
    os.environ.update(CONSTANT_VARIABLES)
    interpreters = os.path.dirname(sys.executable)
    if interpreters not in ("/usr/local/bin", "/usr/bin", "/bin"):
        os.environ["PATH"] = interpreters + ":" + os.environ["PATH"]
    time.tzset()


def set_builtins():
    """exit, quit, help and their like: -S left them out with the rest of `site`."""
    import site

    site.setquit()
    site.setcopyright()
    site.sethelper()


def hold_fork_hooks(native):
    """Lets the modules imported from here on leave their fork hooks with us; native/zygote/hooks.c says why."""
    import os

    held = []
    register = os.register_at_fork

    def hold(**hooks):
        held.append(hooks)

    def release():
        os.register_at_fork = register
        return held

    os.register_at_fork = hold
    register(before=native.fork_before, after_in_parent=native.fork_parent, after_in_child=native.fork_child)
    return release


def prepare(here, native, task_root, layer_root):
    """Everything that can be done before a fork; returns the module to run in the child."""
    import gc

    gc.disable()
    release_hooks = hold_fork_hooks(native)
    package(here)
    set_variables()
    set_builtins()
    from _runtimed import environment, warm

    environment.fork_hooks = release_hooks()
    environment.prepare(task_root, layer_root)
    warm.run(native)
    gc.collect()
    gc.freeze()
    native.settle()
    gc.enable()
    return environment


def main():
    import os

    here = os.path.dirname(os.path.abspath(__file__))
    native = import_native(os.path.join(os.path.dirname(here), "native"))
    environment = prepare(here, native, TASK_ROOT, LAYER_ROOT)
    channel = native.serve(LAUNCHER, "%d.%d.%d" % sys.version_info[:3])
    if channel is not None:
        environment.run(channel, native)


if __name__ == "__main__":
    main()
