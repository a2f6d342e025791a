"""The floor: a bare Quart view on stock Hypercorn. It reads the body and returns a constant.

`python -m tests.benchmarks.floor PORT` serves it.
"""

import asyncio
import sys

import hypercorn.asyncio
import uvloop
from hypercorn.config import Config
from quart import Quart, Response, request

from tests.benchmarks import wire


def create_floor() -> Quart:
    """The smallest application that reads a chat request and answers it."""
    app = Quart(__name__)
    answer = wire.chat_answer()

    @app.post("/v1/chat/completions")
    async def chat() -> Response:
        await request.get_data()
        return Response(answer, content_type="application/json")

    return app


async def serve(port: int) -> None:
    """Serve until the process is killed."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.keep_alive_max_requests = 1_000_000
    config.accesslog = config.errorlog = None
    await hypercorn.asyncio.serve(create_floor(), config, shutdown_trigger=asyncio.Event().wait)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
