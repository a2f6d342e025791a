"""The routes of the web chat: the article's three, and others that the page needs."""

from functools import partial
from http import HTTPStatus
from typing import Final

import msgspec
from quart import Blueprint, Response, redirect
from quart.wrappers.response import IterableBody

from proxy.access import public
from proxy.blueprints.chat_guard import (
    ChatRequestRejected,
    add_headers,
    check_site,
    claim_channel,
    handle_error,
    handle_rejected,
    handle_unavailable,
    is_over,
    offered_model,
    page_settings,
    read_body,
    readable_channel,
    reply,
    requested_branch,
    visitor_address,
    writable_channel,
)
from proxy.blueprints.chat_guard import chat_service as chat
from proxy.blueprints.chat_session import PATH, visitor_session
from proxy.blueprints.exchange import current_request
from proxy.chat.broker import BrokerClosed
from proxy.chat.dialogues import clean_prompt
from proxy.chat.event import parse_id
from proxy.chat.page_files import PageFile
from proxy.errors import ProxyError
from proxy.redis_connection import StoreUnavailable

blueprint = Blueprint("chat", __name__, url_prefix=PATH)
blueprint.before_request(check_site)
blueprint.after_request(add_headers)
blueprint.register_error_handler(ChatRequestRejected, handle_rejected)
blueprint.register_error_handler(ProxyError, handle_error)
blueprint.register_error_handler(StoreUnavailable, handle_unavailable)
blueprint.register_error_handler(BrokerClosed, handle_unavailable)

STREAM_HEADERS: Final = {
    "Cache-Control": "no-store, no-cache, no-transform",
    "X-Accel-Buffering": "no",
}


@blueprint.get("/stream")
@public
async def stream() -> Response:
    """Stream the events of a channel: live ones only, or from an id on."""
    after = _after()
    if await is_over(after):
        return Response(status=HTTPStatus.NO_CONTENT)  # ends the browser's reconnections
    channel, ownership = await readable_channel()
    request = current_request()
    response = Response(b"", headers=STREAM_HEADERS, content_type="text/event-stream; charset=utf-8")
    if request.method == "GET":
        request.exchange.closing.enter_context(chat().streams.slot(visitor_address()))
        subscription = await request.exchange.closing.enter_async_context(
            chat().broker.subscribe(channel, after)
        )
        session, channels = visitor_session(), chat().channels
        watch = None
        if ownership == "free" and channel not in chat().settings.public_channels:
            watch = partial(channels.ownership, channel, session)
        response.response = IterableBody(chat().readers.stream(subscription, watch))
        response.headers.pop("Content-Length", None)
    response.timeout = None
    return response


@blueprint.get("/dialogue")
@public
async def greet() -> Response:
    """Answer a browser that opens the article's route."""
    return Response("Hello Flask-sse !", content_type="text/html; charset=utf-8")


@blueprint.post("/dialogue")
@public
async def dialogue() -> Response:
    """Ask a question; the answer is published on the channel."""
    channel, ownership = await writable_channel(counted=True)
    body, request_id = await read_body(), current_request().exchange.record.request_id
    model, branch = offered_model(body.model), await requested_branch(body)
    await claim_channel(channel, ownership)
    return reply(
        await chat().dialogues.ask(
            channel, body.prompt or "", request_id, visitor_address(), visitor_session(),
            model=model, branch=branch,
        )
    )  # fmt: skip


@blueprint.post("/regenerate")
@public
async def regenerate() -> Response:
    """Answer the last question again."""
    channel, ownership = await writable_channel(counted=True)
    model = offered_model((await read_body()).model) if current_request().is_json else None
    await claim_channel(channel, ownership)
    request_id = current_request().exchange.record.request_id
    return reply(await chat().dialogues.regenerate(channel, request_id, visitor_address(), model=model))


@blueprint.post("/stop")
@public
async def stop() -> Response:
    """Stop the answer that is being written."""
    channel, _ = await writable_channel()
    await chat().dialogues.stop(channel)
    return reply()


@blueprint.post("/reset")
@public
async def reset() -> Response:
    """Delete the conversation. A channel that nobody owns has none; what is stored there is another's."""
    channel, ownership = await writable_channel(counted=True)
    return reply(await chat().dialogues.reset(channel, visitor_session()) if ownership == "own" else None)


@blueprint.get("/conversations")
@public
async def conversations() -> Response:
    """Return the visitor's conversations, or those that contain the words of `?search=`, the latest first."""
    own, words = visitor_session(), current_request().args.get("search", "").strip()
    address = visitor_address()
    await chat().visits.count(own, address)
    found = await (chat().search.find(own, words, address) if words else chat().conversations.read(own))
    return reply(conversations=[msgspec.structs.asdict(listed) for listed in found])


@blueprint.post("/rename")
@public
async def rename() -> Response:
    """Change the title of a conversation."""
    channel, _ = await writable_channel(counted=True)
    title = clean_prompt((await read_body()).title or "")
    if not title or not await chat().conversations.rename(visitor_session(), channel, title):
        raise ChatRequestRejected(HTTPStatus.NOT_FOUND, "no such conversation, or no title")
    return reply()


@blueprint.get("/session")
@public
async def session() -> Response:
    """Return the visitor's channel, whether an answer is written there or in `?channel=`, and settings."""
    own = visitor_session()
    await chat().visits.count(own, visitor_address())
    requested = current_request().args.get("channel")
    channel = own if requested is None else (await readable_channel())[0]
    return reply(
        None, channel=own, busy=await chat().channels.busy(channel), **page_settings(chat().settings)
    )


@blueprint.get("/")
@public
async def page() -> Response:
    """Serve the page."""
    if not current_request().raw_path.endswith(b"/"):
        return redirect(f"{PATH}/")  # type: ignore[return-value]  # the page refers to its files by relative paths
    return _file(chat().page.get("index.html"))


@blueprint.get("/drawer.js")
@public
async def drawer() -> Response:
    """Serve the drawer, which any page can include."""
    return _file(chat().page.get("drawer.js"))


@blueprint.get("/page/<path:name>")
@public
async def page_file(name: str) -> Response:
    """Serve a file of the page or the drawer."""
    return _file(chat().page.get(name))


def _after() -> str | None:
    """Return the reader's last event id: reconnecting browsers send a header, reloaded pages a parameter.

    The header may have the id of an event of another program. That names no position; the parameter may.
    """
    request = current_request()
    given = (request.headers.get("Last-Event-ID"), request.args.get("last_event_id"))
    return next((event_id for event_id in given if parse_id(event_id) is not None), None)


def _file(file: PageFile | None) -> Response:
    if file is None:
        raise ChatRequestRejected(HTTPStatus.NOT_FOUND, "no such file")
    headers = {"ETag": f'"{file.etag}"', "Cache-Control": "no-cache"}
    if current_request().if_none_match.contains(file.etag):
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(file.body, headers=headers, content_type=file.content_type)
