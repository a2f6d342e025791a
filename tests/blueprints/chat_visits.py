"""Visits to the chat of a service without an upstream, with the headers of a browser and without them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace

from proxy.app_parts import app_parts
from proxy.chat.page_files import PageFile
from tests.chat.visitor import Visitor, chat_of, visitor
from tests.conftest import RunningProxy, RunProxy
from tests.raw_caller import RawAnswer, raw_caller

FREE = '[chat]\nrate = "1000/second"\n'
NOWHERE = "http://127.0.0.1:9"
OK = (200, {"code": 1, "msg": ""})


@asynccontextmanager
async def chatting(run_proxy: RunProxy, chat: str = FREE) -> AsyncIterator[tuple[Visitor, RunningProxy]]:
    async with run_proxy(NOWHERE, more=chat) as proxy, visitor(proxy.url) as someone:
        yield someone, proxy


async def send(url: str, method: str, path: str, *headers: str, body: bytes = b"") -> tuple[RawAnswer, bytes]:
    """Send one request without the headers of a browser."""
    async with raw_caller(url) as caller:
        await caller.send(method, path, *headers, body=body, key=None)
        answer = await caller.answer()
        whole = b"" if answer.status in {204, 304} or method == "HEAD" else await caller.body(answer)
        return answer, whole


def use_files(proxy: RunningProxy, **files: str) -> None:
    """Let the page consist of these files."""
    kinds = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8"}
    page = {
        name.replace("__", "/").replace("_", "."): PageFile(
            text.encode(), kinds[name.rpartition("_")[2]], text
        )
        for name, text in files.items()
    }
    app_parts(proxy.app).snapshots.chat = replace(chat_of(proxy), page=page)
