"""Threads for work that takes too long for the event loop, with a limit on the calls at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from copier_mlops.serving.request_batcher import BusyError

Result = TypeVar("Result")


class Workers:
    """Some threads and a queue.

    Args:
        name: name of the threads.
        threads: number of threads.
        most: largest number of calls that wait or run; further calls are rejected.
        busy: the message of that rejection.
    """

    def __init__(self, name: str, threads: int, most: int, busy: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = threading.BoundedSemaphore(most)
        self._busy = busy

    async def run(self, work: Callable[..., Result], *given: Any) -> Result:
        """Return the result of the call. Its place is free when the work ends, even if the client has gone earlier.

        Raises:
            BusyError: If there are as many calls as may be.
        """
        if not self._free.acquire(blocking=False):
            raise BusyError(self._busy)
        future = self._pool.submit(work, *given)
        future.add_done_callback(self._release)
        return await asyncio.wrap_future(future)

    def _release(self, future: Future[Any]) -> None:
        self._free.release()

    def close(self) -> None:
        """Drop waiting calls, and wait for running ones."""
        self._pool.shutdown(cancel_futures=True)
