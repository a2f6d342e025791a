"""Read the list of models, and find the right base URL if the given one is wrong."""

import re
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from proxy.cli.doctor.api import Api, CheckFailed, TimedResponse
from proxy.cli.doctor.findings import Finding
from proxy.wire.endpoints import MODELS

NAMES_SHOWN: Final = 6
NAMES_MAX: Final = 10_000
_VERSION: Final = re.compile(r"/v\d+(?:/|$)")
_API_STATUSES: Final = frozenset({HTTPStatus.OK, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
# How RAGFlow guesses what a model is for, in this order.
_KINDS: Final = (
    ("rerank", re.compile(r"rerank", re.IGNORECASE)),
    ("embedding", re.compile(r"embed|bge", re.IGNORECASE)),
    ("speech", re.compile(r"asr|stt|transcribe|whisper|tts", re.IGNORECASE)),
    ("vision", re.compile(r"vision|llava|gpt-4o|(?:^|[^a-z])vl(?:[^a-z]|$)", re.IGNORECASE)),
)


def kind_of(model: str) -> str:
    """Guess from its name what a model is for, as RAGFlow does: chat unless the name says otherwise."""
    return next((kind for kind, pattern in _KINDS if pattern.search(model)), "chat")


def is_for_chat(model: str) -> bool:
    """Whether a model can chat; those for vision can, too."""
    return kind_of(model) in {"chat", "vision"}


def first_of(kind: str, models: Sequence[str]) -> str | None:
    """Return the first model of a kind."""
    fits = is_for_chat if kind == "chat" else lambda model: kind_of(model) == kind
    return next(filter(fits, models), None)


async def check_models(api: Api) -> tuple[Finding, list[str]]:
    """Return a finding about the list of models, and their names.

    A list is not required: without one, RAGFlow's users have to type the names.
    """
    try:
        response = await api.ask("/models", endpoint=MODELS)
    except CheckFailed as error:
        return error.finding, []
    names = model_names(response.json())
    if response.status == HTTPStatus.OK and names is not None:
        if not names:
            return api.found("models_none"), []
        shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
        return api.found("models_listed", count=len(names), names=shown), names
    if response.status in {HTTPStatus.OK, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
        better = await _better_base_url(api)
        if better is not None:
            return better, []
    return _without_list(api, response), []


def _without_list(api: Api, response: TimedResponse) -> Finding:
    if response.status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
        if response.is_html or not urlsplit(api.base_url).path.strip("/"):
            return api.found("path_unknown", status=response.status)
        return api.found("models_missing", status=response.status)
    rejected = api.rejected(response)
    if rejected is not None:
        return rejected
    return unusable_response(api, response) or api.found("models_unreadable")


def unusable_response(api: Api, response: TimedResponse) -> Finding | None:
    """Return the finding for a 200 that is not a response of an API; None if it is JSON without an error."""
    if response.is_html:
        return api.found("answered_html")
    if response.json() is None:
        return api.found("answered_not_json" if response.body else "answered_nothing")
    return api.found("error_in_200", response.error) if response.error else None


def model_names(value: object) -> list[str] | None:
    """Return the names in a list of models; None if it is not one."""
    listed = value.get("data") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        return None
    entries = listed[:NAMES_MAX]
    return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and entry.get("id")]


async def _better_base_url(api: Api) -> Finding | None:
    """Try the base URLs that were probably meant."""
    for identity, base_url in candidates(api.base_url):
        async with api.with_base_url(base_url) as other:
            try:
                response = await other.ask("/models", endpoint=MODELS)
            except CheckFailed:
                continue
        is_list = model_names(response.json()) is not None
        if response.status in _API_STATUSES and (is_list or response.error):
            return api.found(identity, better=base_url)
    return None


def candidates(base_url: str) -> Iterator[tuple[str, str]]:
    """Yield base URLs that may have been meant, each with the finding that names it."""
    base = base_url.rstrip("/")
    path = urlsplit(base).path
    if "/v1/v1" in path:
        yield "base_url_doubled", base.replace("/v1/v1", "/v1")
    if not _VERSION.search(path):
        yield "base_url_no_version", f"{base}/v1"
    elif path.endswith("/v1"):
        yield "base_url_extra_version", base.removesuffix("/v1")
    if path not in {"", "/v1"}:
        yield "base_url_wrong_path", base.removesuffix(path) + "/v1"
