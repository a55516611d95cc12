"""Ask a service so many times over several connections, each after the answer before: standard library only.

    python asked.py <host:port> <requests> <connections> <file with the row>

Prints how many seconds it took. Ends with an error if an answer is not 200.
"""

import asyncio
import sys
import time
from pathlib import Path


async def ask(address: str, request: bytes, left: list[int]) -> None:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    while left[0] > 0:
        left[0] -= 1
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
        if not head.startswith(b"http/1.1 200"):
            sys.exit(f"error: {head.decode()}{body.decode()[:500]}")
    writer.close()


async def main(address: str, requests: int, connections: int, row: bytes) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {len(row)}\r\n\r\n"
    left, begun = [requests], time.perf_counter()
    await asyncio.gather(*(ask(address, head.encode() + row, left) for _ in range(connections)))
    print(time.perf_counter() - begun)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]).read_bytes()))
