"""Another model is asked what the service is asked, beside it: nobody gets its answers, and the log keeps them for `make monitor`.

Nothing of it may delay or fail what the service does. Its bundle is loaded by a thread of its own, which also answers; what it has no
time for is dropped, and counted.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from copier_mlops import ProjectError
from copier_mlops.bundle.bundle import Bundle
from copier_mlops.data.prediction_log import SHADOW, PredictionLog
from copier_mlops.serving.bundle_loader import answering, records
from copier_mlops.serving.request_parser import Asked, Reader
from copier_mlops.settings import Settings

GATHER_SECONDS = 0.1  # a frame costs a millisecond, and few of them cost the service's own answers little
LEAVING_SECONDS = 2.0  # for what is being answered when the service ends

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Offered:
    """Rows that were answered.

    Attributes:
        asked: The rows.
        predictions: The name of each row's answer.
        at: When they were answered.
    """

    asked: Asked
    predictions: Sequence[str]
    at: str


class Shadow:
    """Answers what was answered, once more and by another bundle.

    Args:
        settings: SHADOW_DIR, who has to have signed it, where the log is, and how many rows may wait.
        champion: What answers.
        reader: Of the champion's contract.

    Attributes:
        up: Whether it takes part.
        rows, dropped, failures: Rows that it answered, had no time for, and could not answer.
    """

    def __init__(self, settings: Settings, champion: Bundle, reader: Reader) -> None:
        self.up = False
        self.rows = self.failures = 0
        self._dropped = 0
        self._settings, self._champion, self._reader = settings, champion, reader
        self._most, self._together = settings.max_waiting_rows, settings.max_rows
        self._over = False
        self._waiting: deque[Offered] = deque()
        self._size = 0
        self._lock, self._wake, self._leaving = threading.Lock(), threading.Event(), threading.Event()
        # A log of its own: where the disk is full, its entries take no room from those of the answers.
        self._kept = PredictionLog(settings.prediction_log, settings.log_flush_seconds)
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Rows that it had no time for, and answers that the log lost."""
        return self._dropped + self._kept.dropped

    def offer(self, asked: Sequence[Asked], predictions: Sequence[str], at: str) -> None:
        """Take rows that were just answered, if there is room for them. Never waits, never raises.

        Args:
            asked: The rows, as they were asked together.
            predictions: The names of the answers, in their order.
            at: When they were answered.
        """
        begin = 0
        with self._lock:
            for one in asked:
                count = len(one.rows)
                if self._over or (self._size + count > self._most and self._size):
                    self._dropped += count
                else:
                    self._waiting.append(Offered(one, predictions[begin : begin + count], at))
                    self._size += count
                begin += count
        self._wake.set()

    def close(self) -> None:
        """End it; what waits is dropped."""
        with self._lock:
            self._over = True
            self._drop()
        self._leaving.set()
        self._wake.set()
        self._thread.join(LEAVING_SECONDS)
        self._kept.close()

    def _drop(self) -> None:
        self._dropped += self._size
        self._waiting.clear()
        self._size = 0

    # ------------------------------------------------------------------------------------------------ Its own thread

    def _run(self) -> None:
        bundle = self._loaded()
        if bundle is None:
            with self._lock:
                self._over = True
                self._drop()
            return
        self.up = True
        while not self._leaving.is_set():
            self._wake.wait()
            self._leaving.wait(GATHER_SECONDS)
            self._wake.clear()
            while some := self._next():
                self._try(bundle, some)
        self.up = False

    def _loaded(self) -> Bundle | None:
        """Its bundle; None, and a line in the service's log, where it cannot be used."""
        folder = self._settings.shadow_dir
        assert folder is not None
        try:
            found = answering(self._settings, folder)
            if found.contract != self._champion.contract:
                raise ProjectError("its contract is another than that of the bundle which answers")
            if found.digest == self._champion.digest or found.version == self._champion.version:
                raise ProjectError(f"version {found.version} is the one that answers")
        except ProjectError as error:
            log.error("nothing is answered in the shadow: the bundle of SHADOW_DIR, %s, is not used: %s", folder, error)
        except Exception:  # whatever old code or an old pickle may raise; the service goes on
            log.exception("nothing is answered in the shadow: the bundle of SHADOW_DIR, %s, is not used", folder)
        else:
            log.info("answers in the shadow", extra={"version": found.version})
            return found
        return None

    def _next(self) -> list[Offered]:
        """The oldest of what waits, as many rows as are answered together."""
        some: list[Offered] = []
        rows = 0
        with self._lock:
            while self._waiting and not (some and rows + len(self._waiting[0].asked.rows) > self._together):
                some.append(self._waiting.popleft())
                rows += len(some[-1].asked.rows)
            self._size -= rows
        return some

    def _try(self, bundle: Bundle, some: Sequence[Offered]) -> None:
        """Answer, and note it; apart where together it fails, so that one row takes no other along."""
        try:
            entries = self._entries(bundle, some)
        except Exception:
            if len(some) > 1:
                for one in some:
                    self._try(bundle, [one])
                return
            if not self.failures:  # once: the next thousand say the same
                log.exception("a row was not answered in the shadow")
            self.failures += len(some[0].predictions)
            return
        self._kept.add(entries)
        self.rows += len(entries)

    def _entries(self, bundle: Bundle, some: Sequence[Offered]) -> list[dict[str, Any]]:
        answers = records(bundle.answers(self._reader.frame([one.asked for one in some])))
        return [
            {
                "prediction": prediction, "id": self._reader.id(row), "version": bundle.version, "at": one.at, "way": SHADOW,
                "inputs": row, "answer": next(answers),
            }
            for one in some
            for row, prediction in zip(one.asked.rows, one.predictions, strict=True)
        ]  # fmt: skip
