"""GET /metrics over HTTP, in threads of its own: rendering takes its time, and the loop has the API to serve.

Whoever can connect may read: names of functions and counts, nothing else. At most THREADS callers at a time, further
ones are turned away; one that is silent or slow is given up.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from runtimed.telemetry.exposition import CONTENT_TYPE

THREADS = 4
NICE = 10
"""Of the threads that render: invocations need not wait for them on a busy processor. Not nicer than that, for the API
waits for whoever has the interpreter's lock."""
SILENT_SECONDS = 5
"""How long a caller may send or take nothing."""
CALL_SECONDS = 30
"""How long a caller may take in all."""
STOP_SECONDS = 0.2
"""How long a stop may wait for the listener's next look."""

log = logging.getLogger(__name__)


class MetricsServer:
    """Serves from `start` until `stop`."""

    def __init__(self, listen: str, render: Callable[[], bytes]) -> None:
        """`listen`: HOST:PORT (0: any, see `port`)."""
        self._listen = listen
        host, _, port = listen.rpartition(":")
        self._where = (host.strip("[]"), int(port))
        self._render = render
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    def start(self) -> None:
        """When it cannot listen, the log says so: functions can be served all the same."""
        try:
            self._server = _Server(self._where, self._render)
        except (OSError, OverflowError) as error:
            log.error("metrics.listen: cannot listen on %s: %s", self._listen, error)
            return
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_SECONDS,), name="metrics", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Callers being served are not waited for. May be called without a start."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None


class _Server(HTTPServer):
    """A thread for each caller, so many at a time."""

    request_queue_size = 16

    def __init__(self, where: tuple[str, int], render: Callable[[], bytes]) -> None:
        self.address_family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
        self._places = threading.BoundedSemaphore(THREADS)
        self._rendering = threading.Lock()
        self._render = render
        super().__init__(where, _Handler)

    def rendered(self) -> bytes:
        with self._rendering:  # one at a time: two would only take twice as long
            return self._render()

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(timeout=STOP_SECONDS):
            self.shutdown_request(request)
            return
        threading.Thread(target=self._serve, args=(request, client_address), name="metrics caller", daemon=True).start()

    def _serve(self, request: Any, client_address: Any) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)  # of this thread alone
        patience = threading.Timer(CALL_SECONDS, _give_up, (request,))
        patience.daemon = True
        patience.start()
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the caller went away
        except Exception:
            log.exception("a caller of /metrics was not answered")
        finally:
            patience.cancel()
            self.shutdown_request(request)
            self._places.release()


def _give_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    server: _Server
    timeout = SILENT_SECONDS
    server_version = "runtimed"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND, "There is /metrics and nothing else")
            return
        try:
            body = self.server.rendered()
        except Exception as error:
            log.error("metrics could not be read: %s", str(error) or type(error).__name__)
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "The node does not say what it counts; try again")
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("/metrics: %s", format % args)
