"""Recognize OAuth 2.0 client credentials (RFC 6749, 4.4) in a recipe (pure)."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote_plus

from proxy.recipe.secrets_out import Draft

_KEYS: Final = {"source", "url", "method", "headers", "form", "basic", "token", "expires", "default_ttl"}
_CARRIED: Final = ("ca_file", "client_cert", "client_key", "proxy", "timeout")
_OF_THE_GRANT: Final = {"grant_type", "client_id", "client_secret", "scope", "audience"}
_EXPECTED: Final = {"expires_in", "access_token"}


def oauth2_table(table: Mapping[str, Any], draft: Draft) -> dict[str, Any] | None:
    """The same as `source = "oauth2"`, or None where the request or the reply has anything of its own."""
    form = table.get("form")
    if form is None or not _is_plain(table):
        return None
    client = _client_of(table, form, draft)
    if client is None:
        return None
    grant: dict[str, Any] = {"source": "oauth2", "token_url": table["url"], **client}
    grant |= {key: form[key] for key in ("scope", "audience") if form.get(key)}
    params = {key: value for key, value in form.items() if key not in _OF_THE_GRANT}
    if params:
        grant["params"] = params
    grant |= {key: table[key] for key in (*_CARRIED, "default_ttl") if key in table}
    return grant


def _is_plain(table: Mapping[str, Any]) -> bool:
    if table["method"] != "POST" or table.get("token") != "access_token":
        return False
    if not set(table) <= _KEYS | {*_CARRIED}:
        return False
    headers = {key.lower(): value for key, value in table.get("headers", {}).items()}
    if not set(headers.items()) <= {("accept", "application/json")}:
        return False
    expires = table.get("expires", [])
    first = expires[:1] == [{"path": "expires_in", "as": "seconds"}] or not expires
    return first and {step["path"] for step in expires} <= _EXPECTED


def _client_of(table: Mapping[str, Any], form: Mapping[str, Any], draft: Draft) -> dict[str, str] | None:
    """Id, secret and where they stand; None where they are not as RFC 6749, 2.3.1 has them."""
    if form.get("grant_type") != "client_credentials":
        return None
    basic = table.get("basic")
    if basic is None:
        if not form.get("client_id") or not form.get("client_secret"):
            return None
        return {"client_id": form["client_id"], "client_secret": form["client_secret"], "auth": "post"}
    if {"client_id", "client_secret"} & set(form):
        return None
    client_id, secret = basic
    sent = [variable.value for variable in draft.variables if f"${{env:{variable.name}}}" == secret]
    # Its halves are form-encoded there: only where that changes nothing is it what curl sends.
    same = all(value is not None and quote_plus(value.reveal()) == value.reveal() for value in sent)
    if not sent or not same or quote_plus(client_id) != client_id:
        return None
    return {"client_id": client_id, "client_secret": secret, "auth": "basic"}
