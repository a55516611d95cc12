"""What the tests of the flows share: somebody who is told."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Heard = tuple[str, list[dict[str, Any]]]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """An address of Apprise's, and what comes there."""
    notices: list[dict[str, Any]] = []

    class Somebody(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            notices.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Somebody) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"json://127.0.0.1:{server.server_port}", notices
        server.shutdown()
