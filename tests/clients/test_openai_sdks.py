"""OpenAI's SDKs, unchanged but for the base URL: Python's newest and its oldest, and Node's."""

import pytest

from tests.clients.answers import CUT, ECHO, HELD, MODELS, WRONG_KEY, arrived_in_pieces, vectors
from tests.clients.client_process import NEWEST, NODE, run_client
from tests.clients.conftest import Place
from tests.conftest import KEY
from tests.loopback import until

ERRORS = {
    "400": "BadRequestError",
    "403": "PermissionDeniedError",
    "404": "NotFoundError",
    "409": "ConflictError",
    "422": "UnprocessableEntityError",
    "429": "RateLimitError",
    "500": "InternalServerError",
    "503": "InternalServerError",
}


@pytest.mark.parametrize("environment", [NEWEST, "oldest", NODE])
async def test_the_sdk_works_as_with_openai_itself(
    place: Place, environment: str, subtests: pytest.Subtests
) -> None:
    script = "openai_node.mjs" if environment == NODE else "openai_sdk.py"
    said = await run_client(environment, script, place.url, KEY)

    with subtests.test("a chat arrives"):
        assert said["chat"] == said.get("chat_async", ECHO) == ECHO
    with subtests.test("a stream arrives piece by piece"):
        assert arrived_in_pieces(said["stream"])
        assert arrived_in_pieces(said.get("stream_async", said["stream"]))
    with subtests.test("vectors are the same as numbers and in base64"):
        assert said["embeddings"]["float"] == said["embeddings"]["default"] == vectors("一", "二")
    with subtests.test("models are listed and shown"):
        assert said["models"] == [MODELS, MODELS[0]]
    with subtests.test("an error has the class of its status"):
        assert said["errors"] == ERRORS
    with subtests.test("a wrong key is an authentication error"):
        assert said["wrong_key"] == ["AuthenticationError", *WRONG_KEY]
    with subtests.test("what cannot help is not retried"):
        assert said["refused"] == ["InternalServerError", 502, "upstream_auth_failed"]
        await until(lambda: bool(place.outcomes("odd:status_401")))
        assert place.outcomes("odd:status_401") == ["upstream_auth_failed"]
    with subtests.test("a passing fault is retried"):
        assert said["flaky"] == ECHO
        assert place.played["flaky"] == 2
    with subtests.test("a stream that is cut is an error after its pieces"):
        name, _, words = said["cut"]["error"]
        assert (said["cut"]["pieces"], name) == (2, "APIError")
        assert words == CUT or environment == "oldest"  # the oldest SDK has its own message for every error
    with subtests.test("pieces arrive at once, and a client who leaves closes the upstream"):
        assert said["leave"] == HELD
        assert await place.client_has_left()
    with subtests.test("an upload arrives byte for byte"):
        upload = said["upload"]
        assert upload["seen"]["target"] == "/v1/echo/audio/transcriptions"
        assert upload["seen"]["body_bytes"] > 3 << 20
        assert upload["seen"]["body_sha256"] == upload.get("sent", upload["seen"]["body_sha256"])
