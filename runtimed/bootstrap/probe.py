"""Prints one line of JSON about the interpreter that runs it, and about Node.js interpreters beside it, for the control
plane, which executes nothing itself.

Run in a jail as `<interpreter> -I -S probe.py` on whatever was found that looks like a Python, so it is written for any
version from 2.7. Members: version "3.11.2"; implementation "cpython"; abi, the name in extensions' suffix, like
"cpython-311-x86_64-linux-gnu"; prefix, where the standard library is; executable; platform "linux-x86_64"; gil,
false for builds without the GIL, in which the extension `_zygote` cannot be loaded; nodes, of Node.js {path: what
`--version` prints}, as far as a sandbox sees them.
"""

import glob
import json
import os
import platform
import signal
import subprocess
import sys
import sysconfig
import threading

# Seconds for all of Node.js together: what hangs must not cost Python its own answer.
PATIENCE = 3.0
NODES = ("/usr/bin/node", "/usr/bin/node[0-9]*", "/usr/bin/nodejs", "/usr/local/bin/node", "/usr/local/bin/node[0-9]*")


def version_of(path, patience):
    """What it prints, as far as it does so in time; it leaves nothing behind."""
    with open(os.devnull) as nothing:
        asked = subprocess.Popen(
            [path, "--version"], stdin=nothing, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=os.setsid
        )
    timer = threading.Timer(patience, os.killpg, (asked.pid, signal.SIGKILL))
    timer.start()
    try:
        return asked.communicate()[0].decode("ascii", "replace")[:64].strip()
    finally:
        timer.cancel()


def nodes():
    found = {}
    for path in sorted(path for pattern in NODES for path in glob.glob(pattern)):
        if os.path.realpath(path) in map(os.path.realpath, found) or not os.access(path, os.X_OK):
            continue
        try:
            found[path] = version_of(path, PATIENCE)
            if not found[path]:
                break  # it hangs, or does not work: the patience is used up
        except OSError:
            pass  # a script without its interpreter, another machine's program
    return found


def describe():
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation().lower(),
        "abi": sysconfig.get_config_var("SOABI") or "",
        "prefix": getattr(sys, "base_prefix", sys.prefix),
        "executable": sys.executable,
        "platform": "%s-%s" % (platform.system().lower(), platform.machine()),
        "gil": not sysconfig.get_config_var("Py_GIL_DISABLED"),
        "nodes": nodes(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe(), sort_keys=True) + "\n")
