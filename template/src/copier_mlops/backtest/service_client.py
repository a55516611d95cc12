"""The service, asked over HTTP."""

from __future__ import annotations

import datetime as dt
import functools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import Any

import msgspec
import pandas as pd

from copier_mlops import project

CONNECTIONS = 2
SECONDS_IDLE = 1.0


class Asker:
    """Asks over a few connections that stay open, and counts.

    Attributes:
        requests, failed: How many there were, and how many had no answer.
        refused: Rows that the service did not take.
    """

    def __init__(self, listen: str) -> None:
        self.requests = self.failed = self.refused = 0
        self._pool = ThreadPoolExecutor(CONNECTIONS)
        self.use(listen)

    def use(self, listen: str) -> None:
        """Send requests to another address from now on, over new connections."""
        self._host, _, self._port = listen.rpartition(":")
        self._local = threading.local()

    def ask(self, bodies: Sequence[tuple[bytes, int]], at: dt.datetime) -> Iterator[list[dict[str, Any]]]:
        """Ask, each body with how many rows it has, as of a moment.

        Returns:
            The answers to each body; none for one that was refused or failed.
        """
        for answers, refused, failed in self._pool.map(functools.partial(self._ask, at=at.isoformat()), bodies):
            self.requests += 1
            self.refused += refused
            self.failed += failed
            yield answers

    def _connection(self) -> HTTPConnection:
        """That of this thread; a new one after a pause, in which a proxy ends what is not used."""
        there, used = getattr(self._local, "there", None), getattr(self._local, "used", 0.0)
        self._local.used = time.monotonic()
        if there is None or self._local.used - used > SECONDS_IDLE:
            if there is not None:
                there.close()
            there = self._local.there = HTTPConnection(self._host, int(self._port), timeout=30)
        return there

    def _ask(self, asked: tuple[bytes, int], at: str) -> tuple[list[dict[str, Any]], int, int]:
        body, rows = asked
        try:
            there = self._connection()
            there.request("POST", "/predict", body, {"Content-Type": "application/json", "X-Asked-At": at})
            reply = there.getresponse()
            said = reply.read()
            if reply.will_close:
                there.close()
            if reply.status == 200:
                return msgspec.json.decode(said, type=list[dict[str, Any]]), 0, 0
            return ([], rows, 0) if reply.status == 422 else ([], 0, 1)
        except (OSError, HTTPException, msgspec.MsgspecError):
            self._local.there = None
            return [], 0, 1


def encoded(rows: pd.DataFrame) -> list[bytes]:
    """Each row as JSON, without its target."""
    columns: dict[str, list[Any]] = {}
    for column in project.contract().without_target():
        values = rows[column.name]
        if column.kind == "timestamp":
            columns[column.name] = values.dt.strftime("%Y-%m-%dT%H:%M:%SZ").where(values.notna(), None).tolist()
        else:
            columns[column.name] = values.astype("object").where(values.notna(), None).tolist()
    names = list(columns)
    encode = msgspec.json.Encoder().encode
    return [encode(dict(zip(names, one, strict=True))) for one in zip(*columns.values(), strict=True)]


def as_table(answers: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Answers as columns: the score of each class, the version, and the id of the row."""
    table = pd.DataFrame(answers)
    if "scores" in table:
        classes = pd.DataFrame(table["scores"].tolist())
        table = table.assign(**{f"score {name}": classes[name] for name in classes})
    return table[[*project.contract().answers, "version", "id"]]
