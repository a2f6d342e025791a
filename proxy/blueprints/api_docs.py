"""The description of the API: `/openapi.json` for programs, `/docs` for people. Neither shows any setting."""

from functools import lru_cache
from typing import Final

import msgspec
from quart import Blueprint, Response

from proxy.access import public
from proxy.api_docs.openapi import describe_api
from proxy.api_docs.page import Style, docs_page
from proxy.app_parts import app_parts
from proxy.blueprints.exchange import current_request, current_services
from proxy.chat.page_files import read_page_files

blueprint = Blueprint("api_docs", __name__)

_LANGUAGES: Final = ("en", "zh")


@blueprint.get("/openapi.json")
@public
async def openapi() -> Response:
    """Return the OpenAPI document."""
    return Response(
        _document(_groups()), content_type="application/json", headers={"Cache-Control": "no-cache"}
    )


@blueprint.get("/docs")
@public
async def docs() -> Response:
    """Return the page."""
    style = app_parts().api_docs_style
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src {style.source}; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept-Language",
        "X-Content-Type-Options": "nosniff",
    }
    text = docs_page(_language(), _groups(), style)
    return Response(text, headers=headers, content_type="text/html; charset=utf-8")


@lru_cache(maxsize=8)
def _document(groups: frozenset[str]) -> bytes:
    """Encode the document once for each set of groups, because that takes some milliseconds."""
    return msgspec.json.encode(describe_api(groups))


def load_style() -> Style:
    """Read the style sheet of the page, whose colours are those of the chat."""
    files = (read_page_files("proxy.chat")["tokens.css"], read_page_files("proxy.api_docs")["docs.css"])
    return Style("".join(file.body.decode() for file in files))


def _language() -> str:
    request = current_request()
    requested = request.args.get("lang", "")
    return requested if requested in _LANGUAGES else request.accept_languages.best_match(_LANGUAGES, "en")


def _groups() -> frozenset[str]:
    """Return the groups of routes that this service serves."""
    settings = current_services().settings
    found = {"operations": True, "chat": settings.chat is not None, "status": settings.status is not None}
    return frozenset(group for group, is_served in found.items() if is_served)
