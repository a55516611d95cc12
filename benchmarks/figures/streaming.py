"""What the model costs on the way of a message: one consumer of Redis against a bare loop of the same client."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from lab import PACKAGE, Lab, environment, free_port, stop
from rows import Row

MESSAGES = 20_000
REPETITIONS = 5
AT_LEAST = 0.5
MEANING = {
    "streaming_over_bare_loop": "messages a second that one consumer of Redis answers, against those that a bare loop reads, "
    "publishes and acknowledges in lots as large, without a model",
}


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A server on loopback that writes each message to the disk before it confirms it.

    Raises:
        RuntimeError: If it is not installed or does not answer.
    """
    if shutil.which("redis-server") is None:
        raise RuntimeError("redis-server is not installed: apt-get install redis-server")
    port = free_port()
    folder.mkdir(parents=True)
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    server = subprocess.Popen(
        [*words, "--appendonly", "yes", "--appendfsync", "always"], env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2):
                break
            time.sleep(0.1)
        else:
            raise RuntimeError("redis-server does not answer")
        yield f"redis://127.0.0.1:{port}"
    finally:
        stop(server)
        shutil.rmtree(folder, ignore_errors=True)


def measure(lab: Lab) -> list[Row]:
    project = lab.serving("streaming")
    with redis(lab.folder / "redis") as url:
        said = project.script("stream_rate.py", PACKAGE, url, str(MESSAGES), str(REPETITIONS)).output
    rates = json.loads(said.splitlines()[-1])
    shares = [ours / bare for bare, ours in rates]
    share = median(shares)
    note = (
        f"{median(ours for _, ours in rates):,.0f} messages a second of one row each, the bare loop "
        f"{median(bare for bare, _ in rates):,.0f}; each is on the disk before it is confirmed"
    )
    spread = (round(min(shares), 4), round(max(shares), 4))
    return [
        Row("streaming_over_bare_loop", round(share, 4), "", spread, f"{AT_LEAST:g} or more", share >= AT_LEAST, note)
    ]
