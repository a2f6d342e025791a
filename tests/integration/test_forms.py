"""Multipart forms: routed by their model, and renamed, even while they are streamed."""

import pytest

from tests.conftest import RunProxy
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream

FORM = "Content-Type: multipart/form-data; boundary=b"
HEAD = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
FILE = b'\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n--b--\r\n'


async def ok(talk: Conversation) -> None:
    """Answer anything."""
    await talk.answer(b"{}", "Content-Type: application/json")


@pytest.mark.parametrize("size", [10, 2 << 20])  # held, and streamed through
async def test_a_form_is_routed_by_its_model_and_the_model_renamed(run_proxy: RunProxy, size: int) -> None:
    file = FILE % bytes(size)
    async with raw_upstream(ok) as upstream, raw_upstream(ok) as other:
        more = f"""
            [[routes.models]]
            match = "whisper*"
            upstream = "other"
            rename = "corp-speech"
            [upstreams.other]
            base_url = "{other.url}/v1"
        """
        async with run_proxy(upstream.url, more=more) as proxy, raw_caller(proxy.url) as caller:
            await caller.send("POST", "/v1/audio/transcriptions", FORM, body=HEAD + b"whisper-1" + file)
            assert (await caller.answer()).status == 200
    assert [request.body for request in other.requests] == [HEAD + b"corp-speech" + file]
    assert (proxy.exchanges[-1]["model"], proxy.exchanges[-1]["upstream"]) == ("whisper-1", "other")
