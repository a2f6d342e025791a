"""General HTTP clients: curl, requests and urllib."""

import json
import shutil

import pytest

from tests.cli.processes import read_until, running
from tests.clients.answers import ECHO, HELD, MODELS, WRONG_KEY
from tests.clients.client_process import run, run_client
from tests.clients.conftest import Place
from tests.conftest import KEY, require

CHAT = {"model": "m", "messages": [{"role": "user", "content": "你是谁"}]}


@pytest.fixture
def curl() -> str:
    """Return the program."""
    program = shutil.which("curl")
    require("curl", found=program is not None)
    return str(program)


def chat_by(curl: str, url: str, *, key: str = KEY, **more: object) -> list[str]:
    """Return a command line that requests a chat."""
    headers = ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
    return [curl, "-sSN", *headers, "-d", json.dumps({**CHAT, **more}), f"{url}/v1/chat/completions"]


async def test_curl_shows_each_piece_while_the_next_is_not_there_yet(place: Place, curl: str) -> None:
    async with running(*chat_by(curl, place.url, model="odd:held", stream=True)) as process:
        for word in HELD:
            assert word in await read_until(process, "data:")
            await read_until(process, "\n")
        assert place.gateway.stats.streams_open == 1
    assert await place.client_has_left()


async def test_curl_gets_a_chat_in_utf8(place: Place, curl: str) -> None:
    answer = json.loads(await run(*chat_by(curl, place.url)))
    assert answer["choices"][0]["message"]["content"] == ECHO


async def test_curl_with_a_wrong_key_gets_401_and_the_envelope(place: Place, curl: str) -> None:
    out = await run(*chat_by(curl, place.url, key="wrong"), "-w", "\n%{http_code}")
    body, status = out.decode().rsplit("\n", 1)
    assert [int(status), json.loads(body)["error"]["code"]] == WRONG_KEY


async def test_requests_and_urllib(place: Place, subtests: pytest.Subtests) -> None:
    said = await run_client("frameworks", "plain_http.py", place.url, KEY)
    requests, urllib = said["requests"], said["urllib"]

    with subtests.test("a chat arrives"):
        assert requests["chat"] == urllib["chat"] == ECHO
    with subtests.test("pieces arrive at once, and a client who leaves closes the upstream"):
        assert (requests["pieces"], requests["type"]) == (HELD, "text/event-stream")
        assert await place.client_has_left()
    with subtests.test("a stream ends with its marker"):
        assert urllib["last"] == ["data: [DONE]", ""]
    with subtests.test("models are listed"):
        assert urllib["models"] == MODELS
    with subtests.test("a wrong key is a 401 in the envelope"):
        assert requests["wrong_key"] == urllib["wrong_key"] == WRONG_KEY
