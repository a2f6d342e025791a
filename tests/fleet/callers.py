"""The callers as a process of their own: `python -m tests.fleet.callers`.

Each target gets requests at a fixed pace, whether or not the earlier ones have been answered.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Final

import aiohttp
import uvloop

from tests.fleet.measure import NO_ANSWER, Record
from tests.fleet.remote import serve

TIMEOUT_SECONDS: Final = 30.0
"""Longer than any wait for a token in the service."""
_CHAT_PATH: Final = "/v1/chat/completions"


class Callers:
    """What the harness calls.

    Args:
        session: Sends the requests.
        group: Runs the callers.
    """

    def __init__(self, session: aiohttp.ClientSession, group: asyncio.TaskGroup) -> None:
        self._session = session
        self._group = group
        self._records: list[Record] = []
        self._paced: dict[str, list[asyncio.Task[None]]] = {}
        self._open: set[asyncio.Task[None]] = set()

    def start(self, kind: str, targets: dict[str, list[str]], pace: float) -> None:
        """Send a request for the model `kind` to each target (URL and key by name) every `pace` seconds."""
        self._paced[kind] = [
            self._group.create_task(self._call_steadily(kind, target, url, key, pace))
            for target, (url, key) in targets.items()
        ]

    def calm(self, kind: str) -> None:
        """Stop sending requests of a kind; those in progress may still be answered."""
        for task in self._paced.pop(kind, []):
            task.cancel()

    async def stop(self, path: str) -> int:
        """Stop sending, wait for the responses, write all records to a file, and return their number."""
        for kind in [*self._paced]:
            self.calm(kind)
        if self._open:
            await asyncio.wait(self._open)
        count = len(self._records)
        Path(path).write_text(  # noqa: ASYNC240  nothing else runs any more
            "".join(json.dumps(record) + "\n" for record in self._records)
        )
        self._records.clear()
        return count

    async def _call_steadily(self, kind: str, target: str, url: str, key: str, pace: float) -> None:
        due = time.monotonic()
        while True:
            task = self._group.create_task(self._call(kind, target, url, key))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            due = max(due + pace, time.monotonic())  # lost time is not made up for
            await asyncio.sleep(due - time.monotonic())

    async def _call(self, kind: str, target: str, url: str, key: str) -> None:
        started = time.monotonic()
        body = {"model": kind, "messages": [{"role": "user", "content": "Are you there?"}]}
        status, code, retry_after = NO_ANSWER, "", None
        try:
            async with self._session.post(
                url + _CHAT_PATH, json=body, headers={"Authorization": f"Bearer {key}"}
            ) as response:
                text = await response.read()
                status, retry_after = response.status, response.headers.get("Retry-After")
                if status != 200:
                    code = str(json.loads(text)["error"]["code"])
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
            code = type(error).__name__
        self._records.append(Record(target, kind, started, time.monotonic(), status, code, retry_after))


async def main() -> None:
    """Send requests until the harness closes the pipe."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as group,
    ):
        await serve(Callers(session, group))


if __name__ == "__main__":
    uvloop.run(main())
