"""Write a `[credentials.NAME]` block: TOML with comments that explain each choice (pure)."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote_plus

from proxy.recipe.draft import Draft, Variable
from proxy.recipe.expiries import Candidate, span
from proxy.recipe.phrases import Translate
from proxy.recipe.reply import Reading
from proxy.secret import MASK
from proxy.settings.section import dotted, quoted

MAX_TTL_SECONDS: Final = 31 * 86400
"""The default of max_ttl in the settings."""
_REISSUE: Final = 'if a new token revokes the previous one, as with WeChat: reissue = "revokes_previous"'
_WIDTH: Final = 108
_EXPIRES_MAX: Final = 3
_OTHERS_MAX: Final = 3


def request_block(name: str, draft: Draft) -> str:
    """Write a block that is sufficient to send the request."""
    return _block(name, {"source": "http", **draft.table, "token": "access_token"}, {}, [])


def credential_block(
    name: str, draft: Draft, reading: Reading, translate: Translate = str, *, folder: str | None = None
) -> str:
    """Write the complete block, with the first token and the first expiry of `reading`.

    Args:
        name: The name of the credential.
        reading: The candidates in the reply.
        translate: Translates the comments.
        folder: The folder whose files hold the secrets, each named like its variable. By default the block
            reads them from the environment.
    """
    comments: dict[str, list[str]] = {}
    table: dict[str, object] = {"source": "http", **draft.table}
    _add_success(table, comments, reading)
    _add_token(table, comments, reading)
    _add_expiry(table, comments, reading)
    grant = oauth2_table(table, draft)
    if grant is not None:
        table = grant
        comments["source"] = ["the request is exactly OAuth 2.0 client credentials (RFC 6749, section 4.4)"]
    opening = map(translate, [*_opening(draft, in_files=folder is not None), *draft.notes])
    translated = {key: [*map(translate, texts)] for key, texts in comments.items()}
    block = _block(name, table, translated, opening) + f"# {translate(_REISSUE)}\n"
    for variable in draft.variables if folder is not None else ():
        block = block.replace(f"${{env:{variable.name}}}", f"${{file:{folder}/{variable.name}}}")
    return block


def exports(variables: Iterable[Variable]) -> list[str]:
    """Write one line for each variable to set, with the value masked."""
    lines = []
    for variable in variables:
        if variable.value is None:
            lines.append(f"# {variable.name} is read from the environment, as in the command line")
        else:
            size = len(variable.value.reveal())
            lines.append(f"export {variable.name}='{MASK}'  # {_plain(variable.where)}, {size} characters")
    return lines


def _opening(draft: Draft, *, in_files: bool) -> Iterator[str]:
    yield "Generated from a curl command. The comments above the keys give the reasons."
    if draft.variables and not in_files:
        yield f"Set in the environment: {', '.join(variable.name for variable in draft.variables)}"


def _add_success(table: dict[str, object], comments: dict[str, list[str]], reading: Reading) -> None:
    if reading.success is None:
        return
    table["success"] = {"path": reading.success.path, "equals": reading.success.value}
    comments["success"] = [_marked(reading.success.why, unsure=reading.success.confidence < 60)]


def _add_token(table: dict[str, object], comments: dict[str, list[str]], reading: Reading) -> None:
    token, *others = reading.tokens
    key = {"path": "token", "header": "token_header", "text": "token_text"}[token.kind]
    table[key] = True if token.kind == "text" else token.path
    comments[key] = [_marked(token.why, unsure=reading.unsure_token)]
    if reading.unsure_token:
        comments[key] += _alternatives(others)
    if " " in str(token.value):
        table["inject"] = {"header": "Authorization", "template": "{token}"}
        comments["inject"] = ['the token in the reply already begins with "Bearer"']
    elif token.kind == "header" and token.path.lower() == "x-subject-token":
        table["inject"] = {"header": "X-Auth-Token", "template": "{token}"}
        comments["inject"] = ["unsure: issuers that return X-Subject-Token usually expect X-Auth-Token"]


def _add_expiry(table: dict[str, object], comments: dict[str, list[str]], reading: Reading) -> None:
    placed = [candidate for candidate in reading.expiries if candidate.kind == "path"]
    if placed and placed[0].local:
        _add_local_time(table, comments, placed[0])
        return
    if not placed or reading.expiries[0].kind == "fixed":
        _add_default_life(table, comments, reading.expiries)
        return
    best, *others = placed
    same = [other for other in others if other.agrees_with(best) and other.path != best.path]
    chosen = [best, *same][:_EXPIRES_MAX]
    table["expires"] = [_entry(candidate) for candidate in chosen if not candidate.local]
    comments["expires"] = [_marked(best.why, unsure=reading.unsure_expiry)]
    if reading.unsure_expiry:
        comments["expires"] += _alternatives(other for other in others if other not in same)
    if best.lifetime is not None and best.lifetime > MAX_TTL_SECONDS:
        table["max_ttl"] = int(best.lifetime * 1.1)
        comments["max_ttl"] = ["more than the default limit of 31 days"]
    if reading.refresh_in is not None:
        table["refresh_in"] = reading.refresh_in.path
        comments["refresh_in"] = [reading.refresh_in.why]


def _entry(candidate: Candidate) -> dict[str, str]:
    """Write an entry of `expires`. The unit may be followed by an offset."""
    offset = candidate.unit.removeprefix("iso8601") if candidate.unit.startswith("iso8601") else ""
    entry = {"path": candidate.path, "as": "iso8601" if offset else candidate.unit}
    return {**entry, "offset": offset} if offset else entry


def _add_local_time(table: dict[str, object], comments: dict[str, list[str]], candidate: Candidate) -> None:
    """Add a placeholder for a local time, whose UTC offset cannot be guessed."""
    table["default_ttl"] = 300
    comments["default_ttl"] = [
        f"unsure: {quoted(candidate.path)} is a local time without a time zone, so five minutes are assumed; "
        "name the UTC offset with --utc-offset, or write instead:",
        f'expires = [{{ path = {quoted(candidate.path)}, as = "iso8601", offset = "+08:00" }}]',
    ]


def _add_default_life(
    table: dict[str, object], comments: dict[str, list[str]], expiries: tuple[Candidate, ...]
) -> None:
    """Add a default lifetime: the one in a JWT outside the JSON, or a guess that the user has to check."""
    known = next((candidate.lifetime for candidate in expiries if candidate.lifetime), None)
    table["default_ttl"] = 300 if known is None else max(int(known), 1)
    comments["default_ttl"] = [
        "unsure: the reply has no lifetime; five minutes are assumed: ask the issuer"
        if known is None
        else _marked(
            f"{expiries[0].why}; no path refers to it, so it is fixed here",
            unsure=expiries[0].kind == "fixed",
        )
    ]
    if known is not None and known > MAX_TTL_SECONDS:
        comments["default_ttl"].append(f"that is {span(known)}")


def _alternatives(others: Iterable[Candidate]) -> list[str]:
    return [
        f"or: {quoted(other.path or other.kind)}{f' as {other.unit}' if other.unit else ''}: {other.why}"
        for other in [*others][:_OTHERS_MAX]
    ]


def _marked(why: str, *, unsure: bool) -> str:
    return f"unsure: {why}" if unsure else why


def _block(
    name: str, table: Mapping[str, object], comments: Mapping[str, Iterable[str]], opening: Iterable[str]
) -> str:
    lines = [line for text in opening for line in _comment(text)]
    lines.append(f"[credentials.{dotted((name,))}]")
    for key, value in table.items():
        lines += [line for text in comments.get(key, ()) for line in _comment(text)]
        lines.append(f"{key} = {toml(value)}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    """Wrap a comment. It may contain names from the reply, which must not end the line."""
    return textwrap.wrap(
        _plain(text), _WIDTH, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False
    )


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:1000]


def toml(value: object) -> str:
    """Write a value as one line of TOML."""
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{dotted((key,))} = {toml(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(item) for item in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else quoted(str(value))


_KEYS: Final = {"source", "url", "method", "headers", "form", "basic", "token", "expires", "default_ttl"}
_CARRIED: Final = ("ca_file", "client_cert", "client_key", "proxy", "timeout")
_GRANT_FIELDS: Final = {"grant_type", "client_id", "client_secret", "scope", "audience"}
_EXPECTED: Final = {"expires_in", "access_token"}


def oauth2_table(table: Mapping[str, object], draft: Draft) -> dict[str, object] | None:
    """Return the equivalent section for `source = "oauth2"`; None if the request is not plain OAuth 2.0."""
    form = table.get("form")
    if not isinstance(form, Mapping) or not _is_plain(table):
        return None
    client = _client_of(form, table.get("basic"), draft)
    if client is None:
        return None
    grant: dict[str, object] = {"source": "oauth2", "token_url": table["url"], **client}
    grant |= {key: form[key] for key in ("scope", "audience") if form.get(key)}
    params = {key: value for key, value in form.items() if key not in _GRANT_FIELDS}
    if params:
        grant["params"] = params
    grant |= {key: table[key] for key in (*_CARRIED, "default_ttl") if key in table}
    return grant


def _is_plain(table: Mapping[str, object]) -> bool:
    if table["method"] != "POST" or table.get("token") != "access_token":
        return False
    if not set(table) <= _KEYS | {*_CARRIED}:
        return False
    headers = table.get("headers")
    pairs = headers.items() if isinstance(headers, Mapping) else ()
    if not {(key.lower(), value) for key, value in pairs} <= {("accept", "application/json")}:
        return False
    expires = table.get("expires")
    expires = expires if isinstance(expires, list) else []
    first = expires[:1] == [{"path": "expires_in", "as": "seconds"}] or not expires
    return first and {step["path"] for step in expires} <= _EXPECTED


def _client_of(form: Mapping[str, str], basic: object, draft: Draft) -> dict[str, str] | None:
    """Return id, secret and authentication; None if they do not conform to RFC 6749 2.3.1."""
    if form.get("grant_type") != "client_credentials":
        return None
    if not isinstance(basic, list):
        if not form.get("client_id") or not form.get("client_secret"):
            return None
        return {"client_id": form["client_id"], "client_secret": form["client_secret"], "auth": "post"}
    if {"client_id", "client_secret"} & set(form):
        return None
    client_id, secret = basic
    sent = [variable.value for variable in draft.variables if f"${{env:{variable.name}}}" == secret]
    # OAuth 2.0 form-encodes both halves, but curl does not: they must be the same in both forms.
    is_same = all(value is not None and quote_plus(value.reveal()) == value.reveal() for value in sent)
    if not sent or not is_same or quote_plus(client_id) != client_id:
        return None
    return {"client_id": client_id, "client_secret": secret, "auth": "basic"}


SCRIPT_NAME: Final = "get-token.sh"
HMAC_NAME: Final = "hmac-token.py"
HMAC_SCRIPT: Final = Path(__file__).with_name("hmac_token.txt")
"""A script that signs with HMAC-SHA256; it is also in config/credentials/."""
STEPS: Final = (
    f"  1. Save the line as {SCRIPT_NAME} next to your settings. It must print the whole reply,",
    "     so remove jq and similar filters. Read secrets from the environment; env of the block sets it.",
    "  2. Or use the script below, which signs with HMAC-SHA256, and adapt the signed text and the request:",
    f'     save it as {HMAC_NAME}, and write command = ["python3", "{HMAC_NAME}"].',
    "  3. Check the paths in the block, then try it: python -m proxy token NAME --config FILE",
)


def exec_block(name: str, reading: Reading | None) -> str:
    """Write a block that runs the command as a script, because the command computes a value.

    Args:
        name: The name of the credential.
        reading: The reading of a saved reply, which supplies the paths.
    """
    comments = ["# The line computes a value for each request, so a script has to send it."]
    token, expires = "data.token", [{"path": "data.expireTime", "as": "epoch_ms"}]
    placed = [] if reading is None else [found for found in reading.tokens if found.kind == "path"]
    if reading is None or not placed:
        comments.append("# unsure: token and expires are examples; replace them with the paths in the reply")
    else:
        token = placed[0].path
        expires = [
            {"path": found.path, "as": found.unit} for found in reading.expiries if found.kind == "path"
        ]
    table: dict[str, object] = {
        "source": "exec",
        "command": ["bash", SCRIPT_NAME],
        "env": {"APP_SECRET": f"${{env:{_variable(name)}_APP_SECRET}}"},
        "format": "json",
        "token": token,
        "expires": expires[:1],
    }
    lines = [*comments, f"[credentials.{dotted((name,))}]"]
    return "\n".join([*lines, *(f"{key} = {toml(value)}" for key, value in table.items())]) + "\n"


def hmac_script() -> str:
    """Return the example script that signs."""
    return HMAC_SCRIPT.read_text(encoding="utf-8")


def _variable(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name).upper()
