"""The example for endpoints whose requests must be signed, run against one that checks the signature."""

import asyncio
import hashlib
import hmac
import json
import shutil
import sys
import time

from quart import Quart, request

from tests.config.examples import FOLDER, Surroundings, bring, value_of
from tests.loopback import serve_on_loopback


def signing_endpoint() -> Quart:
    """A token endpoint that requires a correct signature."""
    app = Quart(__name__, static_folder=None)

    @app.post("/token")
    async def token() -> dict[str, object]:
        body = json.loads(await request.get_data())
        signed = f"appId={body['appId']}&nonce={body['nonce']}&timestamp={body['timestamp']}"
        secret = value_of("CORP_APP_SECRET").encode()
        if body["sign"] != hmac.new(secret, signed.encode(), hashlib.sha256).hexdigest():
            return {"code": 4003, "msg": "bad signature"}
        assert abs(int(body["timestamp"]) / 1000 - time.time()) < 60
        end = int((time.time() + 300) * 1000)
        return {"code": 0, "data": {"token": "of-a-signed-request", "expireTime": end}}

    return app


async def test_the_script_signs_each_request_and_the_block_reads_its_reply(around: Surroundings) -> None:
    shutil.copy(FOLDER / "hmac-token.py", around.folder)
    around.programs = {"python3": f'#!/bin/sh\nexec {sys.executable} "$@"\n'}
    async with serve_on_loopback(signing_endpoint()) as url:
        text = (FOLDER / "exec-hmac.toml").read_text().replace("https://auth.corp.example", url)
        brought = await bring(await asyncio.to_thread(around.load, text), "signed")

    assert brought.headers == {"authorization": "Bearer of-a-signed-request"}
    assert 290 < brought.fetched.lifetime <= 300
