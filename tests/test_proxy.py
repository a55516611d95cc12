"""HAProxy with the configuration of a project, in front of a server that records what reaches it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import engine
import pytest
from conftest import ROOT, free_port, need, wait_until

CONFIGURATION = ROOT / "template/{% if ships %}deploy{% endif %}/haproxy.cfg"
OPEN = ("/predict", "/explain", "/model", "/health/live", "/health/ready", "/docs", "/openapi.json")


@dataclass
class Proxy:
    """A running proxy.

    Attributes:
        port: Port where it listens.
        process: Its master process.
        reached: Request targets that reached the server behind it.
        folder: Folder of its configuration.
    """

    port: int
    process: subprocess.Popen[bytes]
    folder: Path
    reached: list[str] = field(default_factory=list)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def status(self, target: str, head: str = "GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") -> str:
        """Send one request and return the status of the response."""
        with self.connect() as connection:
            connection.sendall(head.format(target).encode())
            response = b""
            with suppress(OSError):
                while part := connection.recv(65536):
                    response += part
        return response.split(b" ", 2)[1].decode() if response.startswith(b"HTTP/") else "none"


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    need(engine.bring("haproxy"))
    reached: list[str] = []

    class Server(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            reached.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(b"{}")
            self.close_connection = True

        do_POST = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        shutil.copy2(CONFIGURATION, tmp_path / "haproxy.cfg")
        (tmp_path / "servers.cfg").write_text(f"backend service\n  server blue-1 127.0.0.1:{server.server_port}\n")
        port = free_port()
        words = [shutil.which("haproxy") or "/usr/sbin/haproxy", "-W", "-db", "-f", "haproxy.cfg", "-f", "servers.cfg"]
        environment = {"LISTEN": f"127.0.0.1:{port}", "SOCKET": "proxy.sock"}
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        running = Proxy(port, process, tmp_path, reached)
        try:
            wait_until(lambda: answers(running), 20, (tmp_path / "log").read_text)
            reached.clear()
            yield running
        finally:
            process.terminate()
            process.wait(10)
            server.shutdown()


def answers(proxy: Proxy) -> bool:
    with suppress(OSError):
        return proxy.status("/model") == "200"
    return False


def test_known_paths_reach_the_service(proxy: Proxy) -> None:
    for path in (*OPEN, "/docs?x=/metrics", "/static-offline-docs/swagger-ui-bundle.js"):
        for head in ("GET {} HTTP/1.1\r\n", "HEAD {} HTTP/1.1\r\n"):
            assert proxy.status(path, head + "Host: x\r\nConnection: close\r\n\r\n") == "200"
        assert proxy.reached == [path] * 2
        proxy.reached.clear()


def test_metrics_and_unknown_paths_do_not_reach_the_service(proxy: Proxy) -> None:
    """No spelling of the path reaches the service, which would decode it and return its metrics."""
    hidden = ("/metrics", "/%6detrics", "/%6Detrics", "/metric%73", "/%2fmetrics", "//metrics", "/metrics/", "/METRICS", "/metrics?x",
              "/./metrics", "/predict/../metrics", "/predict/%2e%2e/metrics", "/static-offline-docs/../metrics",
              "/static-offline-docs/..%2fmetrics", "/static-offline-docs/..", "/predict;/metrics", "/predict/", "/", "*", "/%70redict",
              "http://x/metrics", "http://x/%6detrics", "http:/predict/metrics", "/predict#/metrics", "/health/ready/../../metrics",
              "/metrics\t", "/\\metrics", "/docs/oauth2-redirect")  # fmt: skip
    found = {path: proxy.status(path) for path in hidden}
    assert {path: status for path, status in found.items() if status not in ("404", "400")} == {}
    assert proxy.reached == []
    assert proxy.status("http://x/model") == "200" and proxy.reached == ["/model"]


def test_slow_clients_do_not_occupy_the_service(proxy: Proxy) -> None:
    """A request reaches a replica when its body is complete, so neither a deployment nor a rollback waits for it."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + b"x" * 40
    slow = [proxy.connect() for _ in range(3)]
    for connection in slow:
        connection.sendall(head)
    time.sleep(0.5)
    assert proxy.reached == []
    assert proxy.status("/model") == "200" and proxy.reached == ["/model"]
    slow[0].sendall(b"x" * 60)
    assert slow[0].recv(100).startswith(b"HTTP/1.1 200") and proxy.reached == ["/model", "/predict"]
    for connection in slow:
        connection.close()


def test_a_reload_applies_a_changed_configuration_and_fails_no_request(proxy: Proxy) -> None:
    statuses: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            statuses.append(proxy.status("/model"))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        text = (proxy.folder / "haproxy.cfg").read_text()
        (proxy.folder / "haproxy.cfg").write_text(
            text.replace("acl known path /predict ", "acl known path /predict /new ")
        )
        assert proxy.status("/new") == "404"

        def reloaded() -> bool:
            if proxy.status("/new") == "200":
                return True
            proxy.process.send_signal(signal.SIGUSR2)  # again, since a master that has just started may miss it
            time.sleep(0.5)
            return False

        wait_until(reloaded, 20, (proxy.folder / "log").read_text)
    finally:
        over.set()
        thread.join()
    assert set(statuses) == {"200"}
