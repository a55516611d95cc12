"""Send requests to a service at a fixed rate, whether or not it keeps up: standard library only.

    python overload.py <host:port> <requests a second> <connections> <seconds> <file with the body> [key]

With 0 requests a second, each connection sends its next request as soon as it has a response.

Prints JSON: accepted requests a second, the number of each status, and the median and 99th percentile of the duration
of accepted requests in seconds, from the moment at which a request was due.
"""

import asyncio
import json
import sys
import time
from collections import Counter, deque
from pathlib import Path

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter, float]


KEPT_SECONDS = 3.0  # a connection that is idle for longer is not used again: the service closes it after 5


class Client:
    def __init__(self, address: str, request: bytes) -> None:
        self.host, _, self.port = address.rpartition(":")
        self.request = request
        self.idle: deque[Connection] = deque()
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.ended = 0.0

    async def connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self.idle:
            reader, writer, since = self.idle.pop()
            if time.perf_counter() - since < KEPT_SECONDS:
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self.host, int(self.port))

    async def send(self, due: float) -> None:
        try:
            reader, writer = await self.connection()
            writer.write(self.request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
        except (OSError, EOFError) as error:
            self.statuses[type(error).__name__] += 1
            return
        status = head.split()[1].decode()
        self.statuses[status] += 1
        if status == "200":
            self.ended = time.perf_counter()
            self.seconds.append(self.ended - due)
        if b"connection: close" in head:
            writer.close()
        else:
            self.idle.append((reader, writer, time.perf_counter()))

    async def repeat(self, until: float) -> None:
        while (due := time.perf_counter()) < until:
            await self.send(due)

    async def at_rate(self, rate: float, connections: int, seconds: float) -> None:
        begun, sent, running = time.perf_counter(), 0, set()
        while (now := time.perf_counter()) < begun + seconds:
            while sent < (now - begun) * rate:
                due = begun + sent / rate
                sent += 1
                if len(running) >= connections:
                    self.statuses["not sent"] += 1
                    continue
                task = asyncio.create_task(self.send(due))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.sleep(0.002)
        await asyncio.gather(*running)


async def main(address: str, rate: float, connections: int, seconds: float, body: bytes, key: str) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: {address}\r\nX-API-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    client, begun = Client(address, head.encode() + body), time.perf_counter()
    if rate:
        await client.at_rate(rate, connections, seconds)
    else:
        await asyncio.gather(*(client.repeat(begun + seconds) for _ in range(connections)))
    ordered = sorted(client.seconds) or [0.0]
    accepted = len(client.seconds) / (max(client.ended, begun + seconds) - begun)
    print(
        json.dumps(
            {
                "accepted": accepted,
                "statuses": client.statuses,
                "p50": ordered[len(ordered) // 2],
                "p99": ordered[int(len(ordered) * 0.99)],
            }
        )
    )


ADDRESS, RATE, CONNECTIONS, SECONDS, FILE, *KEY = sys.argv[1:]
asyncio.run(main(ADDRESS, float(RATE), int(CONNECTIONS), float(SECONDS), Path(FILE).read_bytes(), *KEY or [""]))
