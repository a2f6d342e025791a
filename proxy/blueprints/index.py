"""The page at `/`: what this service is, and links to its pages."""

import base64
import hashlib
from html import escape
from typing import Final, NamedTuple

from quart import Blueprint, Response, current_app, request

from proxy.access import public
from proxy.api_docs.openapi import API_REFERENCE
from proxy.blueprints.exchange import current_services
from proxy.blueprints.llm_proxy import METHODS
from proxy.errors import NotFound

blueprint = Blueprint("index", __name__)

_STYLE: Final = """
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1a2223; --quiet: #475153; --accent: #0a5455; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #12191a; --ink: #e8eeed; --quiet: #b3bfbf; --accent: #7fd1cb; }
}
body { margin: 0 auto; padding: 48px 16px; max-width: 38em; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; }
h1 { font-size: 24px; font-weight: 600; margin: 0 0 12px; }
p, dd { margin: 0 0 12px; color: var(--quiet); }
dl { margin: 24px 0 0; }
a { color: var(--accent); font-weight: 600; }
a:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
code { font-family: ui-monospace, "Sarasa Mono SC", monospace; }
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept, Accept-Language",
    "X-Content-Type-Options": "nosniff",
}


class _Words(NamedTuple):
    """The page in one language."""

    lang: str
    title: str
    about: str
    links: dict[str, tuple[str, str]]
    """For each path, the text of the link and a description."""


_ENGLISH: Final = _Words(
    "en",
    "LLM token proxy",
    "This service speaks OpenAI's API: it takes a key that never changes, and sends the model a live token. "
    "The base URL of clients is this address with <code>/v1</code>.",
    {
        "/chat/": ("Chat", "talk to the model here in the browser"),
        "/status": ("Status", "credentials, upstreams and traffic of this service"),
        "/docs": ("Documentation", "every path of this service"),
        API_REFERENCE: ("API reference", "OpenAI's own documentation, which holds here, too"),
    },
)
_CHINESE: Final = _Words(
    "zh-CN",
    "LLM token 代理",
    "本服务提供 OpenAI 接口：调用方使用固定不变的 key，代理向模型发送实时有效的 token。"
    "客户端的 Base URL 就是本页地址加上 <code>/v1</code>。",
    {
        "/chat/": ("对话", "直接在浏览器里与模型对话"),
        "/status": ("状态", "本服务的凭证、上游和流量"),
        "/docs": ("文档", "本服务的全部接口"),
        API_REFERENCE: ("接口参考", "OpenAI 官方文档，在这里同样适用"),
    },
)


@blueprint.route("/", methods=METHODS, provide_automatic_options=False)
@public
async def index() -> Response:
    """Return a page of links to browsers, and 404 to everything else."""
    asked_for_page = any(media == "text/html" and quality > 0 for media, quality in request.accept_mimetypes)
    if request.method not in {"GET", "HEAD"} or not asked_for_page:
        raise NotFound
    words = _CHINESE if request.accept_languages.best_match(["en", "zh"], "en") == "zh" else _ENGLISH
    served = {rule.rule for rule in current_app.url_map.iter_rules()}
    if current_services().settings.status is None:
        served.discard("/status")
    return Response(_page(words, served), headers=_HEADERS, content_type="text/html; charset=utf-8")


def _page(words: _Words, served: set[str]) -> str:
    """Return the page, with a link to each path that this service has."""
    links = "".join(
        f'<dt><a href="{escape(path)}">{escape(text)}</a></dt><dd>{escape(what)}</dd>'
        for path, (text, what) in words.links.items()
        if path in served or not path.startswith("/")
    )
    return (
        f'<!doctype html><html lang="{words.lang}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(words.title)}</title>'
        f"<style>{_STYLE}</style></head><body><main><h1>{escape(words.title)}</h1><p>{words.about}</p>"
        f"<dl>{links}</dl></main></body></html>"
    )
