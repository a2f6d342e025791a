"""What web pages of other sites can do in a real browser to a service on a loopback address: nothing.

Two pages try. One is served under another name and sends requests to 127.0.0.1. The other has rebound its own
name to 127.0.0.1, so that the browser takes the service for its own origin.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, async_playwright
from quart import Quart, Response

from proxy.app import create_app
from proxy.settings import load_settings
from tests.browser.conftest import OPTIONS, find_chromium
from tests.conftest import STATIC
from tests.loopback import serve_on_loopback
from tests.raw_upstream import Conversation, RawUpstream, raw_upstream

SETTINGS = """
[access]
{access}
[routes]
default = "chat"
[upstreams.chat]
base_url = "{upstream}/v1"
credential = "corp"
[credentials.corp]
{credential}
[chat]
"""
DEFAULT_KEYS = 'keys = [{ name = "local", key = "sk-local" }]'
OPEN = 'mode = "open"'
NAMES = "MAP *.example 127.0.0.1"

ATTACKS = """
async ({url, key}) => {
    const JSON_TYPE = {"content-type": "application/json"};
    const headers = key ? {authorization: "Bearer " + key} : {};
    const read = async (path, options = {}) => {
        try {
            const answer = await fetch(url + path, options);
            return [answer.status, await answer.text()];
        } catch (error) {
            return ["blocked", ""];
        }
    };
    const settled = (target, yes, no) => new Promise((resolve) => {
        target.addEventListener(yes, () => resolve(yes));
        target.addEventListener(no, () => resolve(no));
    });
    const body = JSON.stringify({model: "m", messages: [], stream: true});
    const found = {
        models: await read("/v1/models", {headers}),
        post: await read("/v1/chat/completions", {method: "POST", headers, body}),
        form: await read("/v1/files", {method: "POST", headers, body: new FormData()}),
        session: await read("/chat/session"),
        ask: await read("/chat/dialogue", {method: "POST", headers: JSON_TYPE, body}),
    };
    await fetch(url + "/v1/chat/completions", {method: "POST", mode: "no-cors", body}).catch(() => {});
    const protocols = key ? ["realtime", "openai-insecure-api-key." + key] : ["realtime"];
    const socket = new WebSocket(url.replace("http", "ws") + "/v1/realtime?model=m", protocols);
    found.socket = await settled(socket, "open", "error");
    const events = new EventSource(url + "/chat/stream?channel=sse");
    found.events = await settled(events, "open", "error");
    events.close();
    const image = new Image();
    image.src = url + "/v1/models";
    found.image = await settled(image, "load", "error");
    const frame = document.createElement("iframe");
    frame.src = url + "/chat/";
    document.body.append(frame);
    await settled(frame, "load", "error");
    try {
        found.frame = frame.contentDocument ? frame.contentDocument.body.innerText : "";
    } catch (error) {
        found.frame = "";
    }
    const form = document.createElement("form");
    Object.assign(form, {action: url + "/v1/chat/completions", method: "post", enctype: "text/plain"});
    const field = document.createElement("input");
    Object.assign(field, {name: '{"model": "m", "messages": [], "a": "', value: '"}'});
    form.append(field);
    const target = document.createElement("iframe");
    target.name = form.target = "target";
    document.body.append(target, form);
    form.submit();
    await settled(target, "load", "error");
    return found;
}
"""


async def answer_anything(talk: Conversation) -> None:
    """Answer with a text that a foreign page must not read."""
    await talk.answer(
        b'{"secret": "canary"}', "Content-Type: application/json", "Access-Control-Allow-Origin: *"
    )


@asynccontextmanager
async def service(folder: Path, access: str) -> AsyncIterator[tuple[str, RawUpstream]]:
    """Run the service with a chat on a loopback address."""
    path = folder / "proxy.toml"
    async with raw_upstream(answer_anything) as upstream:
        path.write_text(SETTINGS.format(access=access, upstream=upstream.url, credential=STATIC))
        async with serve_on_loopback(create_app(load_settings(path, {}))) as url:
            yield url, upstream


@asynccontextmanager
async def page_at(url: str) -> AsyncIterator[Page]:
    """Open a page in a Chromium that resolves every name below `example` to this machine."""
    async with async_playwright() as playwright:
        options = [*OPTIONS, f"--host-resolver-rules={NAMES}"]
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=options)
        try:
            page = await browser.new_page()
            await page.goto(url)
            yield page
        finally:
            await browser.close()


def foreign_site() -> Quart:
    """Return a site with an empty page."""
    app = Quart(__name__)

    @app.get("/attack")
    async def attack() -> Response:
        return Response("<!doctype html><title>attack</title><body></body>", content_type="text/html")

    return app


def named(url: str, name: str) -> str:
    """Return the same address under another name."""
    return f"http://{name}:{urlsplit(url).port}"


@pytest.mark.parametrize(("access", "key"), [(DEFAULT_KEYS, "sk-local"), (OPEN, "")], ids=["keys", "open"])
async def test_a_page_of_another_site_reaches_neither_model_nor_chat(
    tmp_path: Path, access: str, key: str
) -> None:
    async with (
        service(tmp_path, access) as (url, upstream),
        serve_on_loopback(foreign_site()) as elsewhere,
        page_at(named(elsewhere, "foreign.example") + "/attack") as page,
    ):
        found: dict[str, Any] = await page.evaluate(ATTACKS, {"url": url, "key": key})
    assert "canary" not in json.dumps(found)
    assert upstream.requests == []
    assert {found[name][0] for name in ("models", "post", "form", "session", "ask")} == {"blocked"}
    assert (found["socket"], found["events"], found["image"], found["frame"]) == (
        "error",
        "error",
        "error",
        "",
    )


@pytest.mark.parametrize(("access", "key"), [(DEFAULT_KEYS, "sk-local"), (OPEN, "")], ids=["keys", "open"])
async def test_a_page_that_rebinds_its_name_reaches_neither_model_nor_chat(
    tmp_path: Path, access: str, key: str
) -> None:
    async with (
        service(tmp_path, access) as (url, upstream),
        page_at(named(url, "rebound.example") + "/livez") as page,
    ):
        found: dict[str, Any] = await page.evaluate(
            ATTACKS, {"url": named(url, "rebound.example"), "key": key}
        )
    refused = 401 if key else 403
    assert "canary" not in json.dumps(found)
    assert upstream.requests == []
    assert [found[name][0] for name in ("models", "post", "form")] == [refused] * 3
    assert [found[name][0] for name in ("session", "ask")] == [403, 403]
    assert "hosts in [access]" in found["session"][1]
    assert (found["socket"], found["events"], found["image"]) == ("error", "error", "error")
    assert "chat" not in found["frame"].lower()


async def test_a_page_of_this_machine_and_programs_reach_both(tmp_path: Path) -> None:
    async with service(tmp_path, DEFAULT_KEYS) as (url, upstream), page_at(f"{url}/livez") as page:
        found: dict[str, Any] = await page.evaluate(ATTACKS, {"url": url, "key": "sk-local"})
    assert found["models"] == [200, '{"secret": "canary"}']
    assert (found["session"][0], found["events"]) == (200, "open")
    assert upstream.requests
