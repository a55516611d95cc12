"""Answer waiting requests in batches: a frame costs the libraries a millisecond, each further row little more."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from copier_mlops import ProjectError
from copier_mlops.serving.request_parser import Asked

SMALL = 64  # rows that the loop answers itself: a thread would take the loop's time as well
TURNS = 3  # of the loop in which requests are gathered, as long as more come
HELD = 256  # rejected requests that first wait for room in the queue
HELD_SECONDS, HELD_SHARE = 1.0, 0.2  # their longest wait, as a share of the time for a request
SMOOTHING = 0.2  # weight of the newest batch in the mean time of a batch


class BusyError(ProjectError):
    """The queue is full; the same request can be repeated a moment later."""


Waiting = tuple[Asked, "asyncio.Future[bytes]", float]


class Batcher:
    """Gathers requests, and has them answered a batch at a time.

    Args:
        answer: function from the requests of a batch to the responses, as JSON each. It runs in the loop or in a thread, never in
            both.
        max_rows: rows of a batch, unless one request has more.
        max_waiting: rows in the queue; a request that does not fit is rejected.
        seen: function that gets the rows of each batch.
        max_seconds: longest time that the queue is expected to take; a request that would wait longer is rejected.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], list[bytes]],
        max_rows: int,
        max_waiting: int,
        seen: Callable[[int], object] = lambda rows: None,
        max_seconds: float = float("inf"),
    ) -> None:
        self.rows = 0
        """How many wait or are being answered."""
        self._answer = answer
        self._most, self._most_waiting = max_rows, max_waiting
        self._seen, self._most_seconds = seen, max_seconds
        self._batch_seconds = self._began = 0.0
        self._held = 0
        self._waiting: deque[Waiting] = deque()
        self._arrived = self._turns = 0
        self._turning = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="answers")

    def check(self, rows: int) -> None:
        """Reject a request of so many rows that does not fit into the queue.

        Raises:
            BusyError: If there are as many rows in the queue as may be, or more than can be answered in time.
        """
        if not self.rows:
            return
        batches = -(-(self.rows + rows) // self._most)
        if self.rows + rows > self._most_waiting or batches * self._batch_seconds > self._most_seconds:
            raise BusyError(f"{self.rows} rows wait for an answer; repeat the request in a moment")

    async def admit(self, seconds: float) -> None:
        """Wait a part of the time for a request, if the queue is full, and reject the request if it is full then.

        Clients that repeat a rejected request at once would otherwise take the time of those that are answered.

        Raises:
            BusyError: As `check`.
        """
        try:
            self.check(1)
        except BusyError:
            if self._held >= HELD:
                raise
            self._held += 1
            try:
                await asyncio.sleep(min(HELD_SECONDS, HELD_SHARE * seconds))
            finally:
                self._held -= 1
            self.check(1)

    def ask(self, asked: Asked, deadline: float = float("inf")) -> asyncio.Future[bytes]:
        """Put a request into the queue.

        Args:
            asked: the rows.
            deadline: the time, by time.perf_counter, after which the client gets no response any more.

        Returns:
            The response, as JSON; TimeoutError where the deadline passed in the queue.

        Raises:
            BusyError: As `check`.
        """
        count = len(asked.rows)
        self.check(count)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        self._waiting.append((asked, future, deadline))
        self.rows += count
        self._arrived += 1
        if not self._turning:
            self._turning, self._turns = True, 0
            loop.call_soon(self._turn)
        return future

    def close(self) -> None:
        """Wait for what is being answered."""
        self._pool.shutdown()

    def _turn(self) -> None:
        """Answer what waits, once no more came since the turn before."""
        loop = asyncio.get_running_loop()
        if self._arrived and self._turns < TURNS:
            self._arrived, self._turns = 0, self._turns + 1
            loop.call_soon(self._turn)
            return
        self._arrived = self._turns = 0
        batch = self._take()
        rows = sum(len(asked.rows) for asked, _, _ in batch)
        if not batch:
            self._turning = False
            return
        self._seen(rows)
        self._began = time.perf_counter()
        if rows > SMALL:
            work = loop.run_in_executor(self._pool, self._try, batch)
            work.add_done_callback(lambda done: self._settle(batch, rows, done.result()))
            return
        try:
            answers: list[bytes | Exception] = list(self._answer([asked for asked, _, _ in batch]))
        except Exception as error:
            if len(batch) > 1:
                work = loop.run_in_executor(self._pool, self._each, batch)
                work.add_done_callback(lambda done: self._settle(batch, rows, done.result()))
                return
            answers = [error]
        self._settle(batch, rows, answers)

    def _take(self) -> list[Waiting]:
        """Return the oldest requests of the queue, without those whose client has gone or gets no response any more."""
        batch: list[Waiting] = []
        now = time.perf_counter()
        rows = 0
        while self._waiting:
            asked, future, deadline = self._waiting[0]
            if batch and rows + len(asked.rows) > self._most:
                break
            self._waiting.popleft()
            if future.cancelled() or deadline < now:
                if not future.done():
                    future.set_exception(TimeoutError())
                self.rows -= len(asked.rows)
                continue
            batch.append((asked, future, deadline))
            rows += len(asked.rows)
        return batch

    def _try(self, batch: Sequence[Waiting]) -> list[bytes | Exception]:
        try:
            return list(self._answer([asked for asked, _, _ in batch]))
        except Exception:
            return self._each(batch)

    def _each(self, batch: Sequence[Waiting]) -> list[bytes | Exception]:
        """One at a time, so that what cannot be answered takes nothing else along."""
        answers: list[bytes | Exception] = []
        for asked, _, _ in batch:
            try:
                answers += self._answer([asked])
            except Exception as error:
                answers.append(error)
        return answers

    def _settle(self, batch: Sequence[Waiting], rows: int, answers: Sequence[bytes | Exception]) -> None:
        self.rows -= rows
        self._batch_seconds += SMOOTHING * (time.perf_counter() - self._began - self._batch_seconds)
        for (_, future, _), answer in zip(batch, answers, strict=True):
            if future.done():  # the client has gone
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._turn)
        else:
            self._turning = False
