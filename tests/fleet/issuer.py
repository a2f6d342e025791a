"""The issuer as a separate process: `python -m tests.fleet.issuer`."""

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import uvloop
from aiohttp import web

from tests.fleet.remote import serve
from tests.fleet.tokens import FleetToken

SECRET: Final = "fleet-secret-"
"""The beginning of each client secret; the number of the epoch follows."""
MEMBER_ADDRESS: Final = "127.0.1."
"""Members reach the issuer from this network: the last number is the member's."""


@dataclass
class Behaviour:
    """How the issuer answers.

    Args:
        delay: Seconds before an answer.
        life: Announced seconds of a token's life.
        true_life: Seconds after which the upstream rejects the token; the announced ones if None.
        status: Status of every answer.
        hangs: How many of the next fetches get no answer at all.
    """

    delay: float = 0.2
    life: float = 5.0
    true_life: float | None = None
    status: int = 200
    hangs: int = 0


@dataclass
class Fetch:
    """A request for a token. `ended` is 0 as long as it is not answered."""

    member: int
    epoch: int
    started: float
    ended: float = 0.0
    status: int = 0


class Issuer:
    """The methods that the harness calls."""

    def __init__(self) -> None:
        self._behaviour = Behaviour()
        self._fetches: list[Fetch] = []
        self._serial = 0
        self._released = asyncio.Event()
        self.port = 0

    def address(self) -> int:
        """Return the port of the token endpoint."""
        return self.port

    def behave(self, **behaviour: Any) -> None:
        """Set the behaviour for later requests; missing fields get their defaults."""
        self._behaviour = Behaviour(**behaviour)
        self._released.set()
        self._released = asyncio.Event()

    def fetches(self, epoch: int) -> list[dict[str, Any]]:
        """Return the fetches with a client secret so far, in order."""
        return [asdict(fetch) for fetch in self._fetches if fetch.epoch == epoch]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Issue a token, or misbehave."""
        behaviour, released = self._behaviour, self._released
        epoch = int((await request.json())["appSecret"].removeprefix(SECRET))
        fetch = Fetch(_member(request), epoch, time.monotonic())
        self._fetches.append(fetch)
        if behaviour.hangs > 0:
            behaviour.hangs -= 1
            await released.wait()  # or until the harness ends
        await asyncio.sleep(behaviour.delay)
        fetch.ended, fetch.status = time.monotonic(), behaviour.status
        if behaviour.status != 200:
            return web.json_response({"code": 1}, status=behaviour.status)
        self._serial += 1
        life = behaviour.life
        dies = fetch.ended + (life if behaviour.true_life is None else behaviour.true_life)
        token = FleetToken(epoch, self._serial, fetch.ended, fetch.ended + life, dies).encode()
        data = {"token": token, "expireTime": int((time.time() + life) * 1000)}
        return web.json_response({"code": 0, "data": data})


def _member(request: web.Request) -> int:
    address = request.remote or ""
    return int(address.removeprefix(MEMBER_ADDRESS)) if address.startswith(MEMBER_ADDRESS) else -1


async def main() -> None:
    """Serve until the harness closes the pipe."""
    issuer = Issuer()
    app = web.Application()
    app.router.add_post("/token", issuer.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    issuer.port = runner.addresses[0][1]
    await serve(issuer)
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(main())
