"""The proxy in front of the replicas: HAProxy, whose socket takes weights and states while requests come in."""

from __future__ import annotations

import contextlib
import csv
import re
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from copier_mlops import ProjectError, _files, _ports

SOCKET, SERVERS = "proxy.sock", "servers.cfg"
BACKEND = "service"
WHOLE = 200  # the weight of all replicas of a colour together, where it answers alone; a server's own is at most 256


class ProxyError(ProjectError):
    """The proxy is not there, or does not do what it is told; the text says what."""


@dataclass(frozen=True, order=True)
class Slot:
    """A place for one replica.

    Attributes:
        colour: blue or green.
        number: 1 to `_ports.MAX_REPLICAS`.
        port: Its port on the loopback address.
    """

    colour: str
    number: int
    port: int

    @property
    def name(self) -> str:
        return f"{self.colour}-{self.number}"


def slots(first: int) -> list[Slot]:
    """All places, from a first port on."""
    return [
        Slot(color, number, _ports.replica(first, color, number))
        for color in _ports.COLORS
        for number in range(1, _ports.MAX_REPLICAS + 1)
    ]


def servers(places: Iterable[Slot], weights: Mapping[str, int]) -> str:
    """What servers.cfg says: so the proxy begins, and begins again after a restart of the host."""
    lines = [
        "# Written by `make deploy`.",
        f"backend {BACKEND}",
        "  option httpchk GET /health/ready",
        "  default-server check inter 1s fall 3 rise 1",
    ]
    for place in places:
        weight = weights.get(place.name, 0)
        lines.append(f"  server {place.name} 127.0.0.1:{place.port} " + (f"weight {weight}" if weight else "disabled"))
    return "\n".join(lines) + "\n"


class Proxy:
    """The running proxy, through its socket.

    Args:
        folder: Where its socket and its list of servers are.
        places: All places that a replica may have.
    """

    def __init__(self, folder: Path, places: list[Slot]) -> None:
        self.folder = folder
        self.places = {place.name: place for place in places}
        self.weights: dict[str, int] = {}

    def tell(self, command: str) -> str:
        """Give a command and return what the proxy says.

        Raises:
            ProxyError: If it does not answer, or refuses.
        """
        # The path of a socket has 107 bytes at most, so it is named from inside its folder.
        with contextlib.chdir(self.folder), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            try:
                connection.connect(SOCKET)
                connection.sendall(f"{command}\n".encode())
                said = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
            except OSError as error:
                raise ProxyError(f"the proxy does not answer at {self.folder / SOCKET} ({error})") from error
        if command.startswith("set ") and said.strip():
            raise ProxyError(f"the proxy refuses `{command}`: {said.strip()}")
        return said

    def process(self) -> str:
        """Return the number of HAProxy's process, which changes when it reads its configuration; empty if none responds."""
        try:
            found = re.search(r"^Pid: (\d+)$", self.tell("show info"), re.M)
        except ProxyError:
            return ""
        return found[1] if found else ""

    def begin(self, weights: Mapping[str, int]) -> None:
        """Write down with which servers it begins; nothing is told."""
        self.weights = {name: weight for name, weight in weights.items() if weight}
        _files.write_text(self.folder / SERVERS, servers(self.places.values(), self.weights), sync=True)

    def shift(self, weights: Mapping[str, int]) -> None:
        """Servers with a weight answer by it; the others get no new request, and finish what they have.

        Raises:
            ProxyError: If a server that should answer does not pass the proxy's own check in time.
        """
        wanted = {name: weight for name, weight in weights.items() if weight}
        for name, weight in wanted.items():
            self.tell(f"set server {BACKEND}/{name} weight {weight}")
            self.tell(f"set server {BACKEND}/{name} state ready")
        self._until_up(list(wanted))
        for name in self.places:
            if name not in wanted and self.status(name) not in ("MAINT", "DRAIN"):
                self.tell(f"set server {BACKEND}/{name} state drain")
        self.begin(wanted)

    def _until_up(self, names: list[str], seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while waiting := [name for name in names if not self.status(name).startswith("UP")]:
            if time.monotonic() > end:
                raise ProxyError(f"{', '.join(waiting)} does not pass the proxy's check of /health/ready")
            time.sleep(0.05)

    def status(self, name: str) -> str:
        """UP, DOWN, DRAIN or MAINT, as HAProxy says it."""
        return self.figures()[name]["status"].removesuffix(" (via)")

    def figures(self) -> dict[str, dict[str, str]]:
        """What HAProxy counts of each server, by name."""
        rows = csv.DictReader(self.tell(f"show stat {BACKEND} 4 -1").removeprefix("# ").splitlines())
        return {row["svname"]: row for row in rows}

    def drain(self, names: Iterable[str], seconds: float) -> bool:
        """Wait until servers that get no new request have none left.

        Returns:
            Whether they have; after some seconds what they still do is theirs to finish.
        """
        end = time.monotonic() + seconds
        wanted = list(names)
        while any(int(self.figures()[name]["scur"]) for name in wanted):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def retire(self, names: Iterable[str]) -> None:
        """Nothing runs in these places any more."""
        for name in names:
            self.tell(f"set server {BACKEND}/{name} state maint")


class Direct(Proxy):
    """No proxy: callers use the port of a replica. A replica that is ended finishes its requests first."""

    def process(self) -> str:
        return ""

    def shift(self, weights: Mapping[str, int]) -> None:
        self.begin(weights)

    def drain(self, names: Iterable[str], seconds: float) -> bool:
        return True

    def retire(self, names: Iterable[str]) -> None:
        pass


def share(new: list[str], old: list[str], percent: int) -> dict[str, int]:
    """Weights with which the new replicas answer some percent of the requests, and the old ones the rest."""
    weights = {}
    for names, part in ((new, percent), (old, 100 - percent)):
        for name in names:
            weights[name] = max(1, round(WHOLE * part / 100 / len(names))) if part else 0
    return weights
