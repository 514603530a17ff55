"""Load whose every answer is checked: callers on the dispatcher's socket and through gRPC, and one who deploys.

Each event carries a nonce and each function knows its own name and revision, so that an answer that belongs to another
call, function or deployment is seen. A call ends in the right answer, in a refusal or failure that says so, or with its
connection; anything else is `wrong`.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from bench.calls import dispatch_socket, zipped
from bench.node import Node
from runtimed.client import Client, ClientError
from runtimed.model import errors, wire

SOURCE = """
import time

def handler(event, context):
    time.sleep(event.get("pause", 0))
    return {{"function": {name!r}, "revision": {revision}, "nonce": event["nonce"], "pad": "x" * event.get("pad", 0)}}
"""
FUNCTIONS = ["echo-0", "echo-1", "echo-2"]
PATIENCE = 60.0  # seconds after which a call counts as forgotten
# What callers may be told while parts of the node are replaced: nobody knows whether the function ran, or it did not.
PASSING = (errors.ServiceError, errors.ServiceUnavailable, errors.TooManyRequests)
REFUSALS = {"ServiceException", "ServiceUnavailableException", "TooManyRequestsException", "ResourceNotReadyException"}
FAILURES = {"Runtime.ExitError", "Sandbox.Failure"}


def source(name: str, revision: int = 0) -> bytes:
    """The package of a function that says who it is."""
    return zipped(SOURCE.format(name=name, revision=revision))


def deploy(client: Client, name: str, revision: int = 0) -> None:
    client.deploy(name, source(name, revision), runtime="python3.11", handler="app.handler", timeout=20)


class Lost(Exception):
    """The connection ended before the answer."""


class Caller:
    """A connection to the dispatcher's socket with one call at a time."""

    def __init__(self, node: Node) -> None:
        self._path = dispatch_socket(node)
        self._socket: socket.socket | None = None
        self._numbers = itertools.count(1)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def call(self, name: str, event: object) -> tuple[wire.Answer, bytes]:
        """Lost when the connection ends; TimeoutError after PATIENCE."""
        body, number = msgspec.json.encode(event), next(self._numbers)
        try:
            sock = self._socket = self._socket or self._connect()
            sock.send(wire.encode(wire.Call(name=name, total=len(body), body=body), object=number))
            answer, found = None, b""
            while answer is None or len(found) < answer.total:
                packet = sock.recv(wire.MESSAGE_MAX)
                if not packet:
                    raise Lost
                header, message = wire.decode(packet)
                assert header.object == number, "an answer to a call that was not made here"
                if isinstance(message, wire.Answer):
                    answer, found = message, bytes(message.body)
                elif isinstance(message, wire.AnswerChunk):
                    found += message.data
        except TimeoutError:
            self.close()
            raise
        except (Lost, OSError):
            self.close()
            raise Lost from None
        return answer, found

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        return sock


class Load:
    """Callers of `functions` in threads, until closed. `wrong` must stay empty."""

    def __init__(self, node: Node, functions: list[str], callers: int = 3, moving: bool = True) -> None:
        """`moving`: somebody deploys, updates and deletes functions all the while."""
        self.node = node
        self.functions = functions
        self.told: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.answered = {"dispatch": 0.0, "grpc": 0.0, "deploy": 0.0}  # when the last rightly answered call began
        self._nonces = itertools.count(1)
        self._stop = threading.Event()
        self._ending = False
        lives: list[Callable[[], None]] = [self._direct] * callers + [self._through_grpc]
        self._threads = [threading.Thread(target=life) for life in lives + [self._deploying] * moving]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def expect_end(self) -> None:
        """The node is being stopped: refusals of all kinds are in order from now on, wrong answers are not."""
        self._ending = True

    def pause(self, seconds: float) -> None:
        """While the callers go on."""
        self._stop.wait(seconds)

    def served_since(self, moment: float, paths: tuple[str, ...] = ("dispatch", "grpc")) -> bool:
        """Was a call that began after that moment (time.monotonic) answered rightly, on each of the paths?"""
        return all(self.answered[path] > moment for path in paths)

    def _right(self, path: str, began: float) -> None:
        self.told[f"{path}: right"] += 1
        self.answered[path] = max(self.answered[path], began)

    def _fault(self, what: str) -> None:
        self.wrong.append(what)
        self._stop.wait(0.1)

    def _event(self, nonce: int) -> dict[str, object]:
        return {"nonce": nonce, "pause": 0.02 * (nonce % 3 == 0), "pad": 300_000 * (nonce % 17 == 0)}

    def _check(self, name: str, nonce: int, body: bytes) -> bool:
        value = msgspec.json.decode(body)
        if (value.get("function"), value.get("nonce")) == (name, nonce):
            return True
        self._fault(f"{name} {nonce} was answered {body[:200]!r}")
        return False

    # ---- callers of the dispatcher ---------------------------------------------------------------------------

    def _direct(self) -> None:
        caller = Caller(self.node)
        while not self._stop.is_set():
            nonce = next(self._nonces)
            name, began = self.functions[nonce % len(self.functions)], time.monotonic()
            try:
                answer, body = caller.call(name, self._event(nonce))
            except Lost:
                self.told["dispatch: lost"] += 1
                self._stop.wait(0.02)
            except TimeoutError:
                self._fault(f"{name} {nonce} was not answered in {PATIENCE:g} s")
            except Exception as error:
                self._fault(f"{name} {nonce}: {error!r}")
                caller.close()
            else:
                self._judge(name, nonce, answer, body, began)
        caller.close()

    def _judge(self, name: str, nonce: int, answer: wire.Answer, body: bytes, began: float) -> None:
        if answer.outcome == wire.Outcome.SUCCESS:
            if self._check(name, nonce, body):
                self._right("dispatch", began)
            return
        if answer.outcome == wire.Outcome.REFUSED:
            self.told[f"dispatch: {answer.status} {answer.code}"] += 1
            if not self._ending and (answer.status < 429 or answer.code not in REFUSALS):
                self._fault(f"{name} {nonce}: refused {answer.status} {answer.code} {answer.message}")
            self._stop.wait(0.02)
            return
        error = msgspec.json.decode(body)
        self.told[f"dispatch: {error.get('errorType')}"] += 1
        if error.get("errorType") not in FAILURES:
            self._fault(f"{name} {nonce}: failed with {body[:300]!r}")

    # ---- callers of the control plane ------------------------------------------------------------------------

    def _through_grpc(self) -> None:
        with Client(self.node.address, timeout=PATIENCE) as client:
            while not self._stop.is_set():
                nonce = next(self._nonces)
                name, began = self.functions[nonce % len(self.functions)], time.monotonic()
                try:
                    result = client.invoke(name, self._event(nonce), timeout=PATIENCE)
                except (*PASSING, ClientError) as error:
                    self._passing("grpc", f"{name} {nonce}", error)
                except Exception as error:
                    self._fault(f"{name} {nonce}: {error!r}")
                else:
                    failure = result.error()
                    if failure is None and self._check(name, nonce, result.payload):
                        self._right("grpc", began)
                    elif failure is not None:
                        self.told[f"grpc: {failure.error_type}"] += 1
                        if failure.error_type not in FAILURES:
                            self._fault(f"{name} {nonce}: {failure}")

    def _passing(self, path: str, what: str, error: Exception) -> None:
        detail = f" ({error})" if isinstance(error, errors.ServiceError) else ""  # which of its causes
        self.told[f"{path}: {type(error).__name__}{detail}"] += 1
        if type(error).__name__ == "TimedOut":
            self._fault(f"{what}: {error}")
        self._stop.wait(0.05)

    def _deploying(self) -> None:
        """Deploys, calls, updates, calls and deletes; after an acknowledgement the call must see it."""
        with Client(self.node.address, timeout=PATIENCE) as client:
            for round in itertools.count():
                name = f"moving-{round % 3}"
                for revision in (2 * round, 2 * round + 1):
                    if self._stop.is_set():
                        return
                    began = time.monotonic()
                    try:
                        deploy(client, name, revision)
                        value = client.invoke(name, {"nonce": revision}, timeout=PATIENCE).value
                    except (*PASSING, ClientError, errors.ResourceConflict) as error:
                        self._passing("deploy", f"deploying {name}", error)
                        continue
                    except Exception as error:
                        self._fault(f"deploying {name}: {error!r}")
                        continue
                    if (value["function"], value["revision"], value["nonce"]) != (name, revision, revision):
                        self._fault(f"{name}, deployed as {revision}, answered {value}")
                    self._right("deploy", began)
                self._delete(client, name)

    def _delete(self, client: Client, name: str) -> None:
        try:
            client.delete_function(name)
            client.invoke(name, {"nonce": 0}, timeout=PATIENCE)
            self._fault(f"{name} was deleted and answers")
        except errors.ResourceNotFound:
            pass
        except (*PASSING, ClientError, errors.ResourceConflict) as error:
            self._passing("deploy", f"deleting {name}", error)
        except Exception as error:
            self._fault(f"deleting {name}: {error!r}")
