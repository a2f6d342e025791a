"""Ask several proxies again and again for some seconds; say in JSON how each of them did."""

import asyncio
import json
import sys
import time

import aiohttp

from tests.conftest import KEY

CALLERS = 3
PAUSE_SECONDS = 0.01


async def call(seconds: float, urls: list[str]) -> dict[str, dict[str, int]]:
    """Let some callers ask each URL; how often it was good, answered badly, or not at all."""
    counts = {url: {"good": 0, "bad": 0, "gone": 0} for url in urls}
    stop = time.monotonic() + seconds

    async def caller(session: aiohttp.ClientSession, url: str) -> None:
        while time.monotonic() < stop:
            try:
                async with session.get(f"{url}/v1/models") as response:
                    await response.read()
                    counts[url]["good" if response.status == 200 else "bad"] += 1
            except aiohttp.ClientError:
                counts[url]["gone"] += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
        asyncio.TaskGroup() as group,
    ):
        for url in urls * CALLERS:
            group.create_task(caller(session, url))
    return counts


if __name__ == "__main__":
    print("begun", flush=True)
    print(json.dumps(asyncio.run(call(float(sys.argv[1]), sys.argv[2:]))))
