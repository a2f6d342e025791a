"""The description of the API as one page of HTML, which runs and loads nothing (pure)."""

import base64
import hashlib
from collections.abc import Collection, Iterable
from html import escape
from typing import Final

import msgspec

from proxy.api_docs.openapi import API_REFERENCE
from proxy.api_docs.own_routes import OWN_ROUTES, BilingualText
from proxy.api_docs.relayed import METHODS, relayed_paths
from proxy.wire.endpoints import OTHER, Endpoint, ModelPlace
from proxy.wire.paths import ORIGINAL_MOUNT


class Style(msgspec.Struct, frozen=True):
    """The style sheet of the page, and its hash for the content security policy."""

    text: str

    @property
    def source(self) -> str:
        """What a policy lists under `style-src`."""
        digest = hashlib.sha256(self.text.encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"


_TITLE: Final = BilingualText("API of this service", "本服务的接口")
_OTHER_LANGUAGE: Final = {"en": ("zh", "中文"), "zh": ("en", "English")}
_ABOUT: Final = BilingualText(
    "The service speaks OpenAI's API: it takes a key that never changes, and sends the upstream a live "
    "token. The upstream defines what a relayed request may contain; see {reference}. Programs can read "
    "this description in {document}.",
    "本服务提供 OpenAI 接口：调用方使用固定不变的 key，代理向上游发送实时有效的令牌。"
    "转发的请求可以包含什么由上游决定，见{reference}。供程序读取的同一份说明：{document}。",
)
_REFERENCE: Final = BilingualText("OpenAI's API reference", "OpenAI 接口参考")
_GROUPS: Final = {
    "operations": (
        BilingualText("Operations", "运维"),
        BilingualText("Answered by the service itself. No key is needed.", "由本服务应答，不需要 key。"),
    ),
    "chat": (
        BilingualText("Web chat", "网页对话"),
        BilingualText("Visitors have a session cookie and need no key.", "访客使用会话 Cookie，不需要 key。"),
    ),
    "status": (
        BilingualText("Status page", "状态页"),
        BilingualText("It has its own key.", "使用单独的 key。"),
    ),
}
_RELAYED: Final = BilingualText("Relayed to the upstream", "转发到上游")
_RELAYED_ABOUT: Final = BilingualText(
    "These need the key of a caller, as `Authorization: Bearer KEY`. They are forwarded byte for byte, and "
    "never validated here. Each is also served below `{mount}`, and with `/v1/v1` in place of `/v1`; most "
    "are served without `/v1`, too.",
    "需要调用方的 key：`Authorization: Bearer KEY`。请求和响应逐字节转发，本服务不校验内容。"
    "每个路径也可以加上前缀 `{mount}`，或把 `/v1` 换成 `/v1/v1`；多数路径还可以省略 `/v1`。",
)
_MODEL: Final = {
    ModelPlace.NONE: BilingualText("runs no model", "不运行模型"),
    ModelPlace.BODY: BilingualText("model in the body", "模型在请求体中"),
    ModelPlace.PATH: BilingualText("model in the path", "模型在路径中"),
    ModelPlace.QUERY: BilingualText("model in the query", "模型在查询参数中"),
    ModelPlace.HIDDEN: BilingualText("model not visible", "看不到模型"),
}
_STREAMS: Final = BilingualText("may stream events", "可返回事件流")
_WEBSOCKET: Final = BilingualText("WebSocket", "WebSocket")
_NOT_LIMITED: Final = BilingualText(
    "not for keys limited to models, unless listed", "限定模型的 key 默认不可用"
)
_NOT_COUNTED: Final = BilingualText(
    "not for keys with limits of models or tokens, unless listed", "限定模型或 token 用量的 key 默认不可用"
)
_ONLY_WITH_VERSION: Final = BilingualText("only with `/v1`", "不能省略 `/v1`")
_ALL_OTHERS: Final = BilingualText("every other path", "其他所有路径")


def docs_page(lang: str, groups: Collection[str], style: Style) -> str:
    """Return the page.

    Args:
        lang: `en` or `zh`.
        groups: The groups of `OWN_ROUTES` that this service serves.
    """
    reference = f'<a href="{API_REFERENCE}">{_in(lang, _REFERENCE)}</a>'
    document = '<a href="/openapi.json"><code>/openapi.json</code></a>'
    about = _in(lang, _ABOUT).format(reference=reference, document=document)
    other, name = _OTHER_LANGUAGE[lang]
    sections = "".join(
        _section(_in(lang, title), _in(lang, text), _own_items(lang, group))
        for group, (title, text) in _GROUPS.items()
        if group in groups
    )
    relayed_about = _in(lang, _RELAYED_ABOUT).format(mount=ORIGINAL_MOUNT)
    relayed = _section(_in(lang, _RELAYED), relayed_about, _relayed_items(lang))
    language = f'<a href="/docs?lang={other}" lang="{_tag(other)}" hreflang="{_tag(other)}">{name}</a>'
    return (
        f'<!doctype html><html lang="{_tag(lang)}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{_in(lang, _TITLE)}</title>'
        f"<style>{style.text}</style></head><body><header><h1>{_in(lang, _TITLE)}</h1>{language}</header>"
        f"<main><p>{about}</p>{relayed}{sections}</main></body></html>"
    )


def _own_items(lang: str, group: str) -> Iterable[str]:
    for route in OWN_ROUTES:
        if route.group == group:
            yield _item([route.method.upper()], route.path, _coded(_in(lang, route.summary)))


def _relayed_items(lang: str) -> Iterable[str]:
    for relayed in relayed_paths():
        for endpoint in dict.fromkeys(relayed.endpoints.values()):
            methods = [method for method in METHODS if relayed.endpoints.get(method) == endpoint]
            yield _item(methods, f"/v1/{relayed.template}", _facts(lang, endpoint))


def _facts(lang: str, endpoint: Endpoint) -> str:
    facts = [_MODEL[endpoint.model]]
    if endpoint is OTHER:
        facts.insert(0, _ALL_OTHERS)
    if endpoint.websocket:
        facts.append(_WEBSOCKET)
    elif endpoint.stream is not None:
        facts.append(_STREAMS)
    if not endpoint.for_limited_keys:
        facts.append(_NOT_COUNTED if endpoint.uncounted else _NOT_LIMITED)
    if not endpoint.bare:
        facts.append(_ONLY_WITH_VERSION)
    separator = "，" if lang == "zh" else ", "
    return _coded(separator.join(_in(lang, fact) for fact in facts))


def _section(title: str, about: str, items: Iterable[str]) -> str:
    head = f'<h2>{escape(title)}</h2><p class="quiet">{_coded(about)}</p>'
    return f"<section>{head}<ul>{''.join(items)}</ul></section>"


def _item(methods: Iterable[str], path: str, text: str) -> str:
    return (
        f'<li><span><span class="methods">{" ".join(methods)}</span><code>{escape(path)}</code></span>'
        f"<span>{text}</span></li>"
    )


def _coded(text: str) -> str:
    """Escape a text, and mark the parts between backticks as code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces))


def _in(lang: str, text: BilingualText) -> str:
    return text.zh if lang == "zh" else text.en


def _tag(lang: str) -> str:
    return "zh-CN" if lang == "zh" else lang
