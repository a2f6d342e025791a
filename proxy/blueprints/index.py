"""The page at `/` and at the base URLs of clients: what this service is, and links to its pages."""

import base64
import hashlib
from html import escape
from http import HTTPStatus
from typing import Final, NamedTuple

from quart import Blueprint, Response, current_app, request

from proxy.access import public
from proxy.api_docs.openapi import API_REFERENCE
from proxy.blueprints.exchange import current_request, current_services
from proxy.blueprints.llm_proxy import METHODS
from proxy.errors import NotFound
from proxy.wire.paths import BASE_URLS

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


_IS_BASE_URL: Final = (
    "this address is the base URL of clients, not an endpoint: enter it as the client's base URL "
    "(`base_url`, OPENAI_BASE_URL), and the client appends paths such as /chat/completions; /docs lists them"
)


class _Words(NamedTuple):
    """The page in one language."""

    lang: str
    title: str
    about: str
    about_base_url: str
    """Replaces `about` at the base URLs of clients."""
    links: dict[str, tuple[str, str]]
    """For each path, the text of the link and a description."""


_ENGLISH: Final = _Words(
    "en",
    "LLM token proxy",
    "This service speaks OpenAI's API: it takes a key that never changes, and sends the model a live token. "
    "The base URL of clients is this address with <code>/v1</code>.",
    "This address is the base URL of clients, not a page. Enter it in the client, in the field "
    "<i>Base URL</i>, <i>API base</i> or <i>Endpoint</i>, or as <code>OPENAI_BASE_URL</code>. "
    "The client appends paths such as <code>/chat/completions</code>.",
    {
        "/chat/": ("Chat", "talk to the model here in the browser"),
        "/status": ("Status", "credentials, upstreams and traffic of this service"),
        "/docs": ("Documentation", "every path of this service"),
        API_REFERENCE: ("API reference", "OpenAI's own documentation, which applies here as well"),
    },
)
_CHINESE: Final = _Words(
    "zh-CN",
    "LLM token 代理",
    "本服务提供 OpenAI 接口：调用方使用固定不变的 key，代理向模型发送实时有效的 token。"
    "客户端的 Base URL 就是本页地址加上 <code>/v1</code>。",
    "这个地址是客户端的 Base URL，不是网页。请把它填入客户端的 <i>Base URL</i>、<i>API 地址</i>"
    "或<i>接口地址</i>一栏，或设为 <code>OPENAI_BASE_URL</code>。"
    "客户端会自己加上 <code>/chat/completions</code> 等路径。",
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
    if not _is_asked_for_page():
        raise NotFound
    return _answer(is_base_url=False)


@public
async def base_url() -> Response:
    """Explain what a base URL is for: 404 as a page for browsers, and as an error for everything else."""
    if not _is_asked_for_page():
        raise NotFound(_IS_BASE_URL)
    current_request().exchange.record.fail(NotFound(_IS_BASE_URL))
    return _answer(is_base_url=True)


for _path in BASE_URLS:
    blueprint.add_url_rule(_path, view_func=base_url, methods=METHODS, provide_automatic_options=False)


def _is_asked_for_page() -> bool:
    accepts = any(media == "text/html" and quality > 0 for media, quality in request.accept_mimetypes)
    return accepts and request.method in {"GET", "HEAD"}


def _answer(*, is_base_url: bool) -> Response:
    words = _CHINESE if request.accept_languages.best_match(["en", "zh"], "en") == "zh" else _ENGLISH
    served = {rule.rule for rule in current_app.url_map.iter_rules()}
    if current_services().settings.status is None:
        served.discard("/status")
    page = _page(words, words.about_base_url if is_base_url else words.about, served)
    status = HTTPStatus.NOT_FOUND if is_base_url else HTTPStatus.OK
    return Response(page, status, headers=_HEADERS, content_type="text/html; charset=utf-8")


def _page(words: _Words, about: str, served: set[str]) -> str:
    """Return the page, with a link to each path that this service has."""
    links = "".join(
        f'<dt><a href="{escape(path)}">{escape(text)}</a></dt><dd>{escape(what)}</dd>'
        for path, (text, what) in words.links.items()
        if path in served or not path.startswith("/")
    )
    return (
        f'<!doctype html><html lang="{words.lang}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(words.title)}</title>'
        f"<style>{_STYLE}</style></head><body><main><h1>{escape(words.title)}</h1><p>{about}</p>"
        f"<dl>{links}</dl></main></body></html>"
    )
