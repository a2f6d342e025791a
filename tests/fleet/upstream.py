"""The upstream as a separate process, which checks tokens: `python -m tests.fleet.upstream`."""

import json
import time
from collections import Counter, defaultdict
from typing import Any, Final

import uvloop
from aiohttp import web

from tests.fleet.remote import serve
from tests.fleet.tokens import FleetToken

STATIC_TOKEN: Final = "fleet-control-token"
"""The token of the controls, which never expires."""
FORBIDDEN: Final = "forbidden"
"""The upstream answers 401 for this model, whatever the token."""
MEMBER_HEADER: Final = "x-fleet-member"


class Upstream:
    """The methods that the harness calls."""

    def __init__(self) -> None:
        self.port = 0
        self._revoked = 0.0
        self._seen: dict[str, int] = {}
        self._counts: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._late: defaultdict[int, list[tuple[str, float, float]]] = defaultdict(list)

    def address(self) -> int:
        """Return the port."""
        return self.port

    def revoke(self) -> None:
        """Reject all tokens that were issued before this moment."""
        self._revoked = time.monotonic()

    def seen(self) -> dict[str, int]:
        """Return the epoch of the last token of each member."""
        return self._seen

    def counts(self, epoch: int) -> dict[str, int]:
        """Return the number of requests with each token of an epoch."""
        return self._counts[epoch]

    def late(self, epoch: int) -> list[tuple[str, float, float]]:
        """Return the requests with an expired token of an epoch: member, expiry and arrival."""
        return self._late[epoch]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer with a completion for a valid token, and with 401 otherwise."""
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        body = await request.read()
        if bearer != STATIC_TOKEN:
            verdict = self._judge(bearer, request.headers.get(MEMBER_HEADER, ""))
            if verdict != "good":
                return _refusal("the token is invalid", "invalid_token")
            if json.loads(body)["model"] == FORBIDDEN:
                return _refusal("this model is not for you", "model_denied")
        return web.json_response(_ANSWER)

    def _judge(self, bearer: str, member: str) -> str:
        now, token = time.monotonic(), FleetToken.decode(bearer)
        if token is None:
            self._counts[-1]["unknown"] += 1
            return "unknown"
        self._seen[member] = token.epoch
        verdict = "good"
        if now >= token.told:
            verdict = "expired"
            self._late[token.epoch].append((member, token.told, now))
        elif now >= token.dies:
            verdict = "dead"
        elif token.born < self._revoked:
            verdict = "revoked"
        self._counts[token.epoch][verdict] += 1
        return verdict


_ANSWER: Final[dict[str, Any]] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "good",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


def _refusal(message: str, code: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=401, headers={"WWW-Authenticate": "Bearer"})


async def main() -> None:
    """Serve until the harness closes the pipe."""
    upstream = Upstream()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", upstream.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream.port = runner.addresses[0][1]
    await serve(upstream)
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(main())
