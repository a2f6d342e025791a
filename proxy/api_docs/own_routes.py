"""The routes that the service answers itself, for the description of the API (pure)."""

from typing import Final, NamedTuple

import msgspec

JSON: Final = "application/json"
HTML: Final = "text/html"
TEXT: Final = "text/plain"
EVENTS: Final = "text/event-stream"


class BilingualText(NamedTuple):
    """A text in both languages."""

    en: str
    zh: str


class Parameter(NamedTuple):
    """A parameter of a route."""

    name: str
    place: str
    """`query` or `path`."""
    meaning: str


class BodySpec(NamedTuple):
    """The body of a request: one text in a field."""

    kind: str
    """The content type."""
    field: str


class OwnRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A route with one method."""

    path: str
    """The path as OpenAPI writes it, with parameters in braces."""
    group: str
    """One of `operations`, `chat` and `status`."""
    summary: BilingualText
    answer: str
    """The content type of a successful response."""
    method: str = "get"
    statuses: tuple[tuple[int, str], ...] = ((200, "Success."),)
    """The statuses of interest, with their meanings."""
    parameters: tuple[Parameter, ...] = ()
    body: BodySpec | None = None
    needs_session: bool = False
    """Whether it needs the key of the status page."""


_CHANNEL: Final = Parameter("channel", "query", "The channel; by default `sse`.")
_LANGUAGE: Final = Parameter("lang", "query", "`en` or `zh`; by default the browser's language.")
_SEARCH: Final = Parameter("search", "query", "Words that the conversations contain.")
_NAME: Final = Parameter("name", "path", "The name of a file.")
_READY: Final = (
    (200, "Requests can be served."),
    (503, "The service stops, or the default upstream has no token."),
)
_ASKED: Final = (
    (200, "Accepted, or rejected with the reason in `msg`."),
    (403, "The channel belongs to another visitor."),
    (429, "Too many requests."),
)

OWN_ROUTES: Final = (
    OwnRoute(
        path="/",
        group="operations",
        summary=BilingualText("A page of links, for browsers", "链接页，供浏览器打开"),
        answer=HTML,
        statuses=((200, "The page."), (404, "The client accepts no HTML.")),
    ),
    OwnRoute(
        path="/livez",
        group="operations",
        summary=BilingualText("Whether the process runs", "进程是否在运行"),
        answer=TEXT,
    ),
    OwnRoute(
        path="/readyz",
        group="operations",
        summary=BilingualText("Whether requests should be sent here", "是否可以接收请求"),
        answer=TEXT,
        statuses=_READY,
    ),
    OwnRoute(
        path="/healthz",
        group="operations",
        summary=BilingualText("The same as `/readyz`", "与 `/readyz` 相同"),
        answer=TEXT,
        statuses=_READY,
    ),
    OwnRoute(
        path="/metrics",
        group="operations",
        summary=BilingualText("Metrics for Prometheus", "Prometheus 指标"),
        answer=TEXT,
        statuses=((200, "The metrics of all workers."), (403, "The Host header names another host.")),
    ),
    OwnRoute(
        path="/openapi.json",
        group="operations",
        summary=BilingualText("This description as an OpenAPI document", "本说明的 OpenAPI 文档"),
        answer=JSON,
    ),
    OwnRoute(
        path="/docs",
        group="operations",
        summary=BilingualText("This description as a page", "本说明的网页"),
        answer=HTML,
        parameters=(_LANGUAGE,),
    ),
    OwnRoute(
        path="/chat/",
        group="chat",
        summary=BilingualText("The page of the web chat", "网页对话的页面"),
        answer=HTML,
    ),
    OwnRoute(
        path="/chat/stream",
        group="chat",
        summary=BilingualText("The events of a channel", "一个频道的事件流"),
        answer=EVENTS,
        statuses=(
            (200, "Events."),
            (204, "The channel is over."),
            (403, "The channel belongs to another visitor."),
            (429, "Too many streams."),
        ),
        parameters=(
            _CHANNEL,
            Parameter("last_event_id", "query", "Events after this id are sent again."),
        ),
    ),
    OwnRoute(
        path="/chat/dialogue",
        group="chat",
        summary=BilingualText("A greeting", "问候语"),
        answer=HTML,
    ),
    OwnRoute(
        path="/chat/dialogue",
        method="post",
        group="chat",
        summary=BilingualText(
            "Ask a question; the answer is published on the channel", "提问，回答发布到频道"
        ),
        answer=JSON,
        statuses=_ASKED,
        parameters=(_CHANNEL,),
        body=BodySpec(JSON, "prompt"),
    ),
    OwnRoute(
        path="/chat/regenerate",
        method="post",
        group="chat",
        summary=BilingualText("Answer the last question again", "重新回答上一个问题"),
        answer=JSON,
        statuses=_ASKED,
        parameters=(_CHANNEL,),
    ),
    OwnRoute(
        path="/chat/stop",
        method="post",
        group="chat",
        summary=BilingualText("Stop the answer in progress", "停止正在进行的回答"),
        answer=JSON,
        statuses=_ASKED,
        parameters=(_CHANNEL,),
    ),
    OwnRoute(
        path="/chat/reset",
        method="post",
        group="chat",
        summary=BilingualText("Delete the dialogue", "清空对话"),
        answer=JSON,
        statuses=_ASKED,
        parameters=(_CHANNEL,),
    ),
    OwnRoute(
        path="/chat/conversations",
        group="chat",
        summary=BilingualText("The visitor's conversations, the latest first", "访客的对话，最近的在前"),
        answer=JSON,
        parameters=(_SEARCH,),
    ),
    OwnRoute(
        path="/chat/rename",
        method="post",
        group="chat",
        summary=BilingualText("Change the title of a conversation", "修改对话的标题"),
        answer=JSON,
        statuses=(*_ASKED, (404, "There is no such conversation, or no title.")),
        parameters=(_CHANNEL,),
        body=BodySpec(JSON, "title"),
    ),
    OwnRoute(
        path="/chat/session",
        group="chat",
        summary=BilingualText(
            "The visitor's channel, and whether an answer is in progress", "访客的频道，是否正在回答"
        ),
        answer=JSON,
        parameters=(_CHANNEL,),
    ),
    OwnRoute(
        path="/chat/drawer.js",
        group="chat",
        summary=BilingualText("The chat as a drawer for other pages", "可放进其他网页的对话抽屉"),
        answer="text/javascript",
    ),
    OwnRoute(
        path="/chat/page/{name}",
        group="chat",
        summary=BilingualText("A file of the page", "页面的文件"),
        answer="*/*",
        parameters=(_NAME,),
    ),
    OwnRoute(
        path="/status",
        group="status",
        summary=BilingualText("The status page", "状态页"),
        answer=HTML,
        statuses=((200, "The page."), (401, "The page that asks for the key.")),
        parameters=(_LANGUAGE,),
        needs_session=True,
    ),
    OwnRoute(
        path="/status/events",
        group="status",
        summary=BilingualText("The parts of the status page as they change", "状态页中变化的部分"),
        answer=EVENTS,
        statuses=((200, "Events."), (401, "No key."), (503, "Too many readers.")),
        parameters=(_LANGUAGE,),
        needs_session=True,
    ),
    OwnRoute(
        path="/status/sign-in",
        method="post",
        group="status",
        summary=BilingualText("Exchange the key for a session", "用 key 换取会话"),
        answer=HTML,
        statuses=((303, "To the page, with a cookie."), (401, "The key is wrong.")),
        parameters=(_LANGUAGE,),
        body=BodySpec("application/x-www-form-urlencoded", "key"),
    ),
    OwnRoute(
        path="/status/sign-out",
        method="post",
        group="status",
        summary=BilingualText("End the session in this browser", "结束本浏览器的会话"),
        answer=HTML,
        statuses=((303, "To the page, without the cookie."),),
        parameters=(_LANGUAGE,),
    ),
    OwnRoute(
        path="/status/page/{name}",
        group="status",
        summary=BilingualText("A file of the page", "页面的文件"),
        answer="*/*",
        parameters=(_NAME,),
    ),
)
