"""Prints one line of JSON about the interpreter that runs it, for the control plane, which executes nothing itself.

Run in a jail as `<interpreter> -I -S probe.py` on whatever was found that looks like a Python, so it is written for any
version from 2.7. Members: version "3.11.2"; implementation "cpython"; abi, the name in extensions' suffix, like
"cpython-311-x86_64-linux-gnu"; prefix, where the standard library is; executable; platform "linux-x86_64"; gil,
false for builds without the GIL, in which the extension `_zygote` cannot be loaded.
"""

import json
import platform
import sys
import sysconfig


def describe():
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation().lower(),
        "abi": sysconfig.get_config_var("SOABI") or "",
        "prefix": getattr(sys, "base_prefix", sys.prefix),
        "executable": sys.executable,
        "platform": "%s-%s" % (platform.system().lower(), platform.machine()),
        "gil": not sysconfig.get_config_var("Py_GIL_DISABLED"),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe(), sort_keys=True) + "\n")
