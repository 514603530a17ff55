"""Runs in the guest, as root, from its own unit: the commands that the host sends, one after another.

Lines of JSON over a virtio serial port. From the host: {"run": [word, ...], "environment": {...}, "seconds": n}. To it:
{"ready": boot id} once, {"text": ...} as output comes, {"exit": status}; 124 after the seconds have passed. The agent
sits in a leaf of its unit's cgroup, which systemd delegates; each command runs in a process group of its own beside it.
"""

import contextlib
import glob
import json
import os
import select
import signal
import subprocess
import time

PORT = "/dev/virtio-ports/agent"
TIMED_OUT = 124


def find_port():
    """The port by its name: udev's link, or what the kernel says where that is late."""
    while True:
        if os.path.exists(PORT):
            return PORT
        for name in glob.glob("/sys/class/virtio-ports/*/name"):
            with open(name) as file:
                if file.read().strip() == "agent":
                    return "/dev/" + os.path.basename(os.path.dirname(name))
        time.sleep(0.1)


class Agent:
    def __init__(self):
        self.port = os.open(find_port(), os.O_RDWR)
        self.buffer = b""

    def send(self, **message):
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self.port, data) :]

    def receive(self):
        while b"\n" not in self.buffer:
            data = os.read(self.port, 65536)
            if not data:  # the host has not opened its end
                time.sleep(0.05)
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def run(self, request):
        environment = {**os.environ, **request.get("environment", {})}
        process = subprocess.Popen(
            request["run"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment, cwd=request.get("directory", "/"), start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + request["seconds"]
        late = False
        output = process.stdout.fileno()
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                late = True
                break
            if process.poll() is not None:  # descendants that keep the pipe do not keep us
                left = 0
            if select.select([output], [], [], min(left, 1))[0]:
                data = os.read(output, 65536)
                if not data:
                    break
                self.send(text=data.decode(errors="replace"))
            elif process.returncode is not None:
                break
        with contextlib.suppress(ProcessLookupError):
            if late:
                os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        process.stdout.close()
        self.send(exit=TIMED_OUT if late else status)


def enter_leaf():
    """Out of the unit's own cgroup, whose children may then have controllers."""
    with open("/proc/self/cgroup") as file:
        own = "/sys/fs/cgroup" + file.read().strip().rpartition("::")[2]
    os.makedirs(own + "/agent", exist_ok=True)
    with open(own + "/agent/cgroup.procs", "w") as file:
        file.write("0")


def main():
    enter_leaf()
    agent = Agent()
    with open("/proc/sys/kernel/random/boot_id") as file:
        agent.send(ready=file.read().strip())
    while True:
        request = agent.receive()
        try:
            agent.run(request)
        except OSError as error:
            agent.send(text=f"{error}\n")
            agent.send(exit=127)


if __name__ == "__main__":
    main()
