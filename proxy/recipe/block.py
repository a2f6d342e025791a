"""Write a `[credentials.NAME]` block: TOML with comments that say what is believed, and why (pure)."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from proxy.recipe.expiry_place import span
from proxy.recipe.finding import Finding
from proxy.recipe.oauth2_grant import oauth2_table
from proxy.recipe.phrases import Translate
from proxy.recipe.reply import Reading
from proxy.recipe.secrets_out import Draft, Variable
from proxy.secret import MASK
from proxy.settings.section import dotted, quoted

MAX_TTL_SECONDS: Final = 31 * 86400
"""The settings' own bound, above which a life is not believed."""
_REISSUE: Final = 'if a new token ends the one before, as with WeChat: reissue = "revokes_previous"'
_WIDTH: Final = 108
_EXPIRES_MAX: Final = 3
_OTHERS_MAX: Final = 3


def request_block(name: str, draft: Draft) -> str:
    """The block as far as the request goes: enough to send it, not to read the reply."""
    return _block(name, {"source": "http", **draft.table, "token": "access_token"}, {}, [])


def credential_block(name: str, draft: Draft, reading: Reading, translate: Translate = str) -> str:
    """The whole block. `reading` has at least one token; the first of its tokens and expiries are taken."""
    comments: dict[str, list[str]] = {}
    table: dict[str, Any] = {"source": "http", **draft.table}
    _add_success(table, comments, reading)
    _add_token(table, comments, reading)
    _add_expiry(table, comments, reading)
    grant = oauth2_table(table, draft)
    if grant is not None:
        table = grant
        comments["source"] = ["the request is exactly OAuth 2.0 client credentials (RFC 6749, section 4.4)"]
    opening = map(translate, [*_opening(draft), *draft.notes])
    translated = {key: [*map(translate, texts)] for key, texts in comments.items()}
    return _block(name, table, translated, opening) + f"# {translate(_REISSUE)}\n"


def exports(variables: Iterable[Variable]) -> list[str]:
    """One line for each variable to set, its value masked."""
    lines = []
    for variable in variables:
        if variable.value is None:
            lines.append(f"# {variable.name} is read from the environment, as in the line")
        else:
            size = len(variable.value.reveal())
            lines.append(f"export {variable.name}='{MASK}'  # {_plain(variable.where)}, {size} characters")
    return lines


def _opening(draft: Draft) -> Iterator[str]:
    yield "Made from a curl line. Above each key stands what is believed, and why."
    if draft.variables:
        yield f"Set in the environment: {', '.join(variable.name for variable in draft.variables)}"


def _add_success(table: dict[str, Any], comments: dict[str, list[str]], reading: Reading) -> None:
    if reading.success is None:
        return
    table["success"] = {"path": reading.success.path, "equals": reading.success.value}
    comments["success"] = [_doubted(reading.success.why, unsure=reading.success.confidence < 60)]


def _add_token(table: dict[str, Any], comments: dict[str, list[str]], reading: Reading) -> None:
    token, *others = reading.tokens
    key = {"path": "token", "header": "token_header", "text": "token_text"}[token.kind]
    table[key] = True if token.kind == "text" else token.path
    comments[key] = [_doubted(token.why, unsure=reading.unsure_token)]
    if reading.unsure_token:
        comments[key] += _alternatives(others)
    if " " in str(token.value):
        table["inject"] = {"header": "Authorization", "template": "{token}"}
        comments["inject"] = ['the reply says "Bearer" itself']
    elif token.kind == "header" and token.path.lower() == "x-subject-token":
        table["inject"] = {"header": "X-Auth-Token", "template": "{token}"}
        comments["inject"] = [
            "unsure: where X-Subject-Token is given, X-Auth-Token is what upstreams ask for"
        ]


def _add_expiry(table: dict[str, Any], comments: dict[str, list[str]], reading: Reading) -> None:
    placed = [finding for finding in reading.expiries if finding.kind == "path"]
    if placed and placed[0].local:
        _add_local_time(table, comments, placed[0])
        return
    if not placed:
        _add_default_life(table, comments, reading.expiries)
        return
    best, *others = placed
    same = [other for other in others if other.agrees_with(best) and other.path != best.path]
    chosen = [best, *same][:_EXPIRES_MAX]
    table["expires"] = [_entry(finding) for finding in chosen if not finding.local]
    comments["expires"] = [_doubted(best.why, unsure=reading.unsure_expiry)]
    if reading.unsure_expiry:
        comments["expires"] += _alternatives(other for other in others if other not in same)
    if best.lifetime is not None and best.lifetime > MAX_TTL_SECONDS:
        table["max_ttl"] = int(best.lifetime * 1.1)
        comments["max_ttl"] = ["more than the 31 days that are believed otherwise"]
    if reading.refresh_in is not None:
        table["refresh_in"] = reading.refresh_in.path
        comments["refresh_in"] = [reading.refresh_in.why]


def _entry(finding: Finding) -> dict[str, str]:
    """One entry of `expires`; an offset is behind its unit."""
    offset = finding.unit.removeprefix("iso8601") if finding.unit.startswith("iso8601") else ""
    entry = {"path": finding.path, "as": "iso8601" if offset else finding.unit}
    return {**entry, "offset": offset} if offset else entry


def _add_local_time(table: dict[str, Any], comments: dict[str, list[str]], finding: Finding) -> None:
    """A time whose zone nobody has named yet: it is not guessed."""
    table["default_ttl"] = 300
    comments["default_ttl"] = [
        f"unsure: {quoted(finding.path)} is a local time that names no zone, so five minutes are assumed; "
        "name the offset of the issuer's clock with --utc-offset, or write here instead:",
        f'expires = [{{ path = {quoted(finding.path)}, as = "iso8601", offset = "+08:00" }}]',
    ]


def _add_default_life(
    table: dict[str, Any], comments: dict[str, list[str]], expiries: tuple[Finding, ...]
) -> None:
    """Where no path leads to the life: what a JWT outside of the JSON says, or a guess to be checked."""
    own = next((finding.lifetime for finding in expiries if finding.lifetime), None)
    table["default_ttl"] = 300 if own is None else max(int(own), 1)
    comments["default_ttl"] = [
        "unsure: nothing in the reply tells the token's life; five minutes are assumed: ask its issuer"
        if own is None
        else f"{expiries[0].why}; no path leads there, so it is fixed here"
    ]
    if own is not None and own > MAX_TTL_SECONDS:
        comments["default_ttl"].append(f"that is {span(own)}")


def _alternatives(others: Iterable[Finding]) -> list[str]:
    return [
        f"or: {quoted(other.path or other.kind)}{f' as {other.unit}' if other.unit else ''}: {other.why}"
        for other in [*others][:_OTHERS_MAX]
    ]


def _doubted(why: str, *, unsure: bool) -> str:
    return f"unsure: {why}" if unsure else why


def _block(
    name: str, table: Mapping[str, Any], comments: Mapping[str, Iterable[str]], opening: Iterable[str]
) -> str:
    lines = [line for text in opening for line in _comment(text)]
    lines.append(f"[credentials.{dotted((name,))}]")
    for key, value in table.items():
        lines += [line for text in comments.get(key, ()) for line in _comment(text)]
        lines.append(f"{key} = {toml(value)}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    """Comment lines: a reply's own names stand in them, and must not end one."""
    return textwrap.wrap(
        _plain(text), _WIDTH, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False
    )


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:1000]


def toml(value: Any) -> str:
    """One value in one line of TOML."""
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{dotted((key,))} = {toml(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(item) for item in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else quoted(value)
