"""Runs other programs, as functions that carry binaries do."""

import os
import shutil
import subprocess
import sys


def handler(event, context):
    listing = subprocess.run(
        ["/bin/sh", "-c", "ls / | sort | tr '\\n' ' '"], capture_output=True, text=True, check=True
    )
    python = subprocess.run(
        [sys.executable, "-c", "import json, sys; json.dump(sorted(json.load(sys.stdin)), sys.stdout)"],
        input="[3, 1, 2]",
        capture_output=True,
        text=True,
        check=True,
    )
    failing = subprocess.run(["/bin/sh", "-c", "echo lost >&2; exit 7"], capture_output=True, text=True, check=False)
    pipeline = subprocess.check_output("printf 'b\\na\\n' | sort | head -1", shell=True, text=True)
    try:
        subprocess.run(["sleep", "30"], timeout=0.2, check=False)
        timed_out = False
    except subprocess.TimeoutExpired:
        timed_out = True
    orphan = subprocess.Popen("sleep 0.05 & exit 0", shell=True)
    return {
        "root": listing.stdout.split(),
        "sorted": python.stdout,
        "failing": [failing.returncode, failing.stderr.strip()],
        "pipeline": pipeline.strip(),
        "timed_out": timed_out,
        "orphan": orphan.wait(),
        "shell": shutil.which("sh"),
        "pid_is_not_1": os.getpid() != 1,
    }
