"""rerun's page of the live view, which may talk to nobody but this machine."""

from __future__ import annotations

import shutil
import socket
import threading
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = "127.0.0.1"
TIMEOUT_S = 30.0


class Page:
    """Hands on what rerun's server has, with the order to the browser to ask nobody else.

    By itself the page reports its use to rerun's makers and asks for releases and fonts.

    Args:
        port: to serve at.
        rerun: port of rerun's own page.
        data: port of the frames.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, port: int, rerun: int, data: int):
        here = f"'self' http://{HOST}:{data} blob: data:"
        policy = f"default-src {here} 'unsafe-inline' 'unsafe-eval'"
        self._server = ThreadingHTTPServer((HOST, port), partial(_Handler, rerun, policy))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="page", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(
        self,
        rerun: int,
        policy: str,
        request: socket.socket,
        address: tuple[str, int],
        server: ThreadingHTTPServer,
    ):
        self._rerun, self._policy = rerun, policy
        super().__init__(request, address, server)  # answers it

    def do_GET(self) -> None:
        connection = HTTPConnection(HOST, self._rerun, timeout=TIMEOUT_S)
        try:
            connection.request("GET", self.path)
            answer = connection.getresponse()
        except (OSError, HTTPException):
            self.send_error(HTTPStatus.BAD_GATEWAY)
            return
        with answer, suppress(OSError):  # the browser went away
            self.send_response(answer.status)
            for name in ("Content-Type", "Content-Length"):
                if value := answer.getheader(name):
                    self.send_header(name, value)
            self.send_header("Content-Security-Policy", self._policy)
            self.end_headers()
            shutil.copyfileobj(answer, self.wfile)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
