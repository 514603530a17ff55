"""Runs stress-ng, which the host has in /usr, with the arguments of the event, in /tmp."""

import subprocess

from look import hold, look

__all__ = ["hold", "look"]


def handler(event, context):
    if event["deed"] == "look":
        return look()
    done = subprocess.run(
        ["/usr/bin/stress-ng", "--temp-path", "/tmp", *event["arguments"]],
        cwd="/tmp",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return [done.returncode, done.stdout.decode(errors="replace")[-3000:]]
