"""What waits is answered together, each with its own answer; what cannot be answered takes nothing else along."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from copier_mlops.serving import request_batcher
from copier_mlops.serving.request_batcher import SMALL, Batcher, BusyError
from copier_mlops.serving.request_parser import Asked


def of(*values: int) -> Asked:
    return Asked(list(values), True, list(values))


class Doubling:
    """Answers twice a value, and remembers what it was asked together, and where."""

    def __init__(self, slow: float = 0) -> None:
        self.batches: list[int] = []
        self.threads: list[bool] = []
        self.slow = slow

    def __call__(self, asked: Sequence[Asked]) -> list[bytes]:
        self.batches.append(sum(len(one.rows) for one in asked))
        self.threads.append(threading.current_thread() is not threading.main_thread())
        time.sleep(self.slow)
        if any(-1 in one.rows for one in asked):
            raise ValueError("no number")
        return [str([2 * value for value in one.rows]).encode() for one in asked]


def test_what_comes_together_is_answered_together_and_each_gets_its_own() -> None:
    answer = Doubling()

    async def ask() -> list[bytes]:
        batcher = Batcher(answer, 100, 1000)
        found = await asyncio.gather(*(batcher.ask(of(number)) for number in range(20)))
        assert batcher.rows == 0
        return found

    assert asyncio.run(ask()) == [str([2 * number]).encode() for number in range(20)]
    assert answer.batches == [20]
    assert answer.threads == [False]


def test_a_batch_has_no_more_rows_than_it_may_unless_one_request_has() -> None:
    answer = Doubling()

    async def ask() -> None:
        batcher = Batcher(answer, 10, 1000)
        await asyncio.gather(*(batcher.ask(of(*range(count))) for count in (4, 4, 4, 12, 10, 1)))

    asyncio.run(ask())
    assert answer.batches == [8, 4, 12, 10, 1]


def test_large_batches_leave_the_loop_free() -> None:
    answer = Doubling(slow=0.2)

    async def ask() -> int:
        batcher, turns = Batcher(answer, 1000, 1000), 0
        future = batcher.ask(of(*range(SMALL + 1)))
        while not future.done():
            await asyncio.sleep(0.01)
            turns += 1
        batcher.close()
        return turns

    assert asyncio.run(ask()) > 5
    assert answer.threads == [True]


def test_what_would_wait_too_long_is_refused_at_once() -> None:
    async def ask() -> None:
        batcher = Batcher(Doubling(), 10, 20)
        futures = [batcher.ask(of(*range(10))) for _ in range(2)]
        with pytest.raises(BusyError, match="20 rows wait"):
            batcher.ask(of(1))
        await asyncio.gather(*futures)
        assert await batcher.ask(of(*range(30))) != b""  # more than the queue has, but alone

    asyncio.run(ask())


@pytest.mark.parametrize("many", [1, SMALL])
def test_one_that_cannot_be_answered_takes_no_other_along(many: int) -> None:
    async def ask() -> list[bytes | BaseException]:
        batcher = Batcher(Doubling(), 1000, 1000)
        asked = [of(*range(many)), of(-1), of(1), of(2)]
        return await asyncio.gather(*(batcher.ask(one) for one in asked), return_exceptions=True)

    first, second, *others = asyncio.run(ask())
    assert isinstance(first, bytes)
    assert isinstance(second, ValueError)
    assert others == [b"[2]", b"[4]"]


def test_what_nobody_waits_for_any_more_is_not_answered() -> None:
    answer = Doubling()

    async def ask() -> None:
        batcher = Batcher(answer, 1000, 1000)
        gone, there = batcher.ask(of(1, 2, 3)), batcher.ask(of(4))
        gone.cancel()
        assert await there == b"[8]"
        assert batcher.rows == 0

    asyncio.run(ask())
    assert answer.batches == [1]


def test_a_request_whose_deadline_passed_in_the_queue_is_not_answered() -> None:
    answer = Doubling()

    async def ask() -> None:
        batcher = Batcher(answer, 1000, 1000)
        late, fine = batcher.ask(of(1, 2, 3), time.perf_counter() - 1), batcher.ask(of(4), time.perf_counter() + 60)
        with pytest.raises(TimeoutError):
            await late
        assert await fine == b"[8]"
        assert batcher.rows == 0

    asyncio.run(ask())
    assert answer.batches == [1]


def test_a_request_is_rejected_where_the_queue_takes_longer_than_it_may() -> None:
    """A slow model cannot answer in time even far fewer rows than the queue has room for."""

    async def ask() -> None:
        batcher = Batcher(Doubling(slow=0.2), 2, 1000, max_seconds=0.15)
        batcher.check(1000)  # nothing waits, so it is tried
        for _ in range(8):
            await batcher.ask(of(1, 2))
        waiting = batcher.ask(of(1, 2))
        with pytest.raises(BusyError, match="2 rows wait"):
            batcher.check(1)
        await waiting
        batcher.check(1)

    asyncio.run(ask())


def test_a_request_is_held_for_a_moment_before_it_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_batcher, "HELD", 1)

    async def ask() -> None:
        batcher = Batcher(Doubling(), 10, 20)
        batcher.rows = 20
        held = asyncio.create_task(batcher.admit(1))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await batcher.admit(3600)  # as many are held as may be
        batcher.rows = 0
        await held
        batcher.rows = 20
        with pytest.raises(BusyError):
            await batcher.admit(1)

    asyncio.run(ask())
