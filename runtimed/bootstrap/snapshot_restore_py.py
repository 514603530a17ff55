"""The interface `snapshot_restore_py` of functions with SnapStart: what is to be done before the snapshot of an
initialised environment is taken, and after an environment was restored from it. Imported by functions under that name.

Hooks before the snapshot run in the reverse order of their registration, those after restoring in its order. Both may
be used as decorators. Written after Lambda's documentation of runtime hooks for Python.
"""

_before_snapshot = []
_after_restore = []


def register_before_snapshot(func, *args, **kwargs):
    """`func(*args, **kwargs)` once, at the end of the init phase."""
    _before_snapshot.append((func, args, kwargs))
    return func


def register_after_restore(func, *args, **kwargs):
    """`func(*args, **kwargs)` in every environment, before its first invocation."""
    _after_restore.append((func, args, kwargs))
    return func


def get_before_snapshot():
    return _before_snapshot


def get_after_restore():
    return _after_restore
