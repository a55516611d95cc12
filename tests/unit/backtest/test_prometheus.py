"""Which alerts a Prometheus has raised, from one that answers as the real one does."""

import json
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from copier_mlops import ProjectError
from copier_mlops.backtest import prometheus


@pytest.fixture
def saying() -> Iterator[Callable[[bytes], int]]:
    """A server that says the same to whoever asks; its port."""
    servers = []

    def start(said: bytes) -> int:
        class Prometheus(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path.startswith("/api/v1/query?query=") and " " not in self.path
                self.send_response(200)
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *some: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Prometheus)
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        return int(server.server_port)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_alerts_by_name(saying: Callable[[bytes], int]) -> None:
    result = [{"metric": {"alertname": name}, "value": [1.0, "3"]} for name in ("Two", "One")]
    assert prometheus.fired(saying(json.dumps({"data": {"result": result}}).encode())) == ["One", "Two"]
    assert prometheus.fired(saying(b'{"data": {"result": []}}')) == []


@pytest.mark.parametrize("said", [b"", b"<html>", b"[]", b'{"status": "error"}'])
def test_what_is_no_answer_is_said(saying: Callable[[bytes], int], said: bytes) -> None:
    with pytest.raises(ProjectError, match=r"Prometheus at 127\.0\.0\.1:\d+ does not say what it raised"):
        prometheus.fired(saying(said))


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(ProjectError, match="does not say"):
            prometheus.fired(taken.getsockname()[1])


@pytest.mark.parametrize("names", [("prometheus", "alertmanager"), ("prometheus", "prometheus-alertmanager")])
def test_it_is_installed_with_its_alertmanager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in names:
        assert not prometheus.is_installed()
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert prometheus.is_installed()
