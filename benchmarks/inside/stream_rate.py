"""How many messages a second the consumer answers, and how many a bare loop passes on without a model; one process each in turn.

    python stream_rate.py <package> <address of Redis> <messages> <repetitions>

The bare loop does with the same client what the consumer does with it: it reads as many at a time, and publishes and acknowledges
in one transaction. Prints, for each repetition, the messages a second of the loop and of the consumer.
"""

import asyncio
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path

from redis.asyncio import Redis

PACKAGE, URL = sys.argv[1:3]
MESSAGES, REPETITIONS = int(sys.argv[3]), int(sys.argv[4])
STREAMS = ("rows", "answers", "set-aside")


def module(name: str) -> object:
    return importlib.import_module(f"{PACKAGE}.{name}")


def lines(bundle: object) -> list[bytes]:
    """Messages of one row each, none like another."""
    expected = bundle.expected
    rows = [dict(zip(expected["columns"], values, strict=True)) for values in expected["rows"]]
    name = bundle.contract.id
    return [json.dumps({**rows[number % len(rows)], name: f"row {number}"}).encode() for number in range(MESSAGES)]


async def fill(client: Redis, messages: list[bytes]) -> None:
    await client.delete(*STREAMS)
    for start in range(0, len(messages), 1000):
        pipe = client.pipeline(transaction=False)
        for message in messages[start : start + 1000]:
            pipe.xadd("rows", {"__data__": message})
        await pipe.execute()


async def bare(client: Redis, most: int) -> float:
    """Seconds of reading, publishing and acknowledging all of them."""
    await client.xgroup_create("rows", "bare", id="0")
    begun, done = time.perf_counter(), 0
    while done < MESSAGES:
        [(_, entries)] = await client.xreadgroup("bare", "me", {"rows": ">"}, count=most)
        async with client.pipeline(transaction=True) as both:
            for _, fields in entries:
                both.xadd("answers", fields)
            both.xack("rows", "bare", *[name for name, _ in entries])
            await both.execute()
        done += len(entries)
    return time.perf_counter() - begun


async def consumed(bundle: object, messages: list[bytes]) -> float:
    """Seconds of answering all of them, with the prediction log."""
    brokers, stream, log = module("io.brokers"), module("serving.stream"), module("io.prediction_log")
    settings = module("settings").Settings(stream_url=URL)
    source = brokers.broker(URL, "rows", STREAMS[1:], 30)
    stop, finish, seen = asyncio.Event(), source.finish, []

    async def counted(taken: list[object], answers: list[object]) -> None:
        await finish(taken, answers)
        seen.extend(answers)
        if len(seen) >= MESSAGES:
            stop.set()

    source.finish = counted
    with tempfile.TemporaryDirectory() as folder:
        kept = log.PredictionLog(Path(folder), 1)
        consumer = stream.Consumer(bundle, stream.Reader(bundle.contract, 1000, "key"), kept, settings)
        consumer.work([brokers.Taken(message, "", None) for message in messages[:100]], 1 << 20)  # the first one loads
        begun = time.perf_counter()
        await consumer.run(source, stop)
        seconds = time.perf_counter() - begun
        kept.close()
    return seconds


async def main() -> None:
    bundle = module("serving.answering").answering(module("settings").Settings())
    messages, client = lines(bundle), Redis.from_url(URL)
    found = []
    for _ in range(REPETITIONS):
        await fill(client, messages)
        loop = await bare(client, module("io.brokers").MOST)
        await fill(client, messages)
        found.append((MESSAGES / loop, MESSAGES / await consumed(bundle, messages)))
        if await client.xlen("answers") != MESSAGES:
            raise SystemExit("the consumer did not answer every message once")
    await client.aclose()
    print(json.dumps(found))


asyncio.run(main())
