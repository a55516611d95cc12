"""A steady stream of requests, and what became of each: `python load.py ADDRESS RATE FILE` asks until its standard input ends."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

CONNECTIONS = 32


class Load:
    """Requests for one row, so many a second, whether or not those before were answered.

    Attributes:
        failed: What went wrong, in words, and how often.
        answers: How often each version gave which answer.
        seconds: How long each request took.
    """

    def __init__(self, address: str, rate: float, body: bytes) -> None:
        self.host, _, self.port = address.rpartition(":")
        self.rate = rate
        self.request = (
            f"POST /predict HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self.failed: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.Queue()

    async def one(self) -> None:
        began, connection = time.perf_counter(), await self.free.get()
        try:
            if connection is None:
                connection = await asyncio.open_connection(self.host, int(self.port))
            reader, writer = connection
            writer.write(self.request)
            await writer.drain()
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode().lower()
            length = int(head.partition("content-length:")[2].split("\r\n")[0])
            body = await reader.readexactly(length)
            if not head.startswith("http/1.1 200"):
                self.failed[head.splitlines()[0] + " " + body.decode()[:100]] += 1
            else:
                answer = json.loads(body)
                self.answers[f"{answer['version']} {answer['score']!r}"] += 1
            if "connection: close" in head:
                writer.close()
                connection = None
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.failed[f"{type(error).__name__} {error}"] += 1
            connection = None
        self.seconds.append(time.perf_counter() - began)
        self.free.put_nowait(connection)

    async def until(self, stop: asyncio.Event) -> None:
        for _ in range(CONNECTIONS):
            self.free.put_nowait(None)
        begun, asked, running = time.perf_counter(), 0, set()
        while not stop.is_set():
            due = int((time.perf_counter() - begun) * self.rate)
            for _ in range(due - asked):
                task = asyncio.create_task(self.one())
                running.add(task)
                task.add_done_callback(running.discard)
            asked = due
            await asyncio.sleep(0.005)
        await asyncio.gather(*running)
        self.rate = asked / (time.perf_counter() - begun)

    def told(self) -> dict[str, object]:
        ordered = sorted(self.seconds)
        return {"requests": len(ordered), "failed": dict(self.failed), "answers": dict(self.answers), "rate": round(self.rate),
                "p50": round(ordered[len(ordered) // 2], 4), "p99": round(ordered[int(len(ordered) * 0.99)], 4), "worst": round(ordered[-1], 4)}  # fmt: skip


async def main(address: str, rate: str, file: str) -> None:
    load, stop, loop = Load(address, float(rate), Path(file).read_bytes()), asyncio.Event(), asyncio.get_running_loop()

    def until_it_ends() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(stop.set)

    loop.run_in_executor(None, until_it_ends)
    await load.until(stop)
    print(json.dumps(load.told()))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
