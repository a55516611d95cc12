"""The processes of `make up`, as their supervisor reports them."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any
from xmlrpc.client import Error, dumps, loads

SECONDS = 2.0
UP = ("STARTING", "RUNNING")


@dataclass(frozen=True)
class ProcessState:
    """The state of a process.

    Attributes:
        name: name of the process.
        up: whether it runs; False while it waits for another start, and once the supervisor has given up.
        started: time of its last start, in seconds since 1970; 0 before the first.
    """

    name: str
    up: bool
    started: float


class _Connection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)


def process_states(url: str) -> list[ProcessState]:
    """Return the state of each process; nothing, if the supervisor does not respond.

    Args:
        url: `unix://` and the path of its socket, as its processes have it in SUPERVISOR_SERVER_URL.
    """
    connection = _Connection(url.removeprefix("unix://"))
    try:
        request = dumps((), "supervisor.getAllProcessInfo")
        connection.request("POST", "/RPC2", request, {"Content-Type": "text/xml", "Accept": "text/xml"})
        found: Any = loads(connection.getresponse().read())[0][0]
    except (OSError, HTTPException, Error, ValueError):
        return []
    finally:
        connection.close()
    return [ProcessState(one["name"], one["statename"] in UP, float(one["start"])) for one in found]
