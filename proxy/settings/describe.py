"""Print the resolved settings as TOML-like text with every secret masked."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from proxy.secret import MASK, Secret
from proxy.secret_detection import is_harmless, is_random
from proxy.settings.fields import EMBEDDED
from proxy.settings.interpolation import Interpolated, LateReference, LateText
from proxy.settings.section import FREE_TABLES, Section, dotted, quoted
from proxy.settings.sections import Routes, Settings

_OPTION = re.compile(r"-[A-Za-z]|--[A-Za-z][A-Za-z-]*")
"""The name of an option. A single hyphen has one letter: `-psecret` is `-p` with its value."""
_SCHEME = re.compile(r"[\s:;,.-]*+(?:Bearer|Basic|Token)?[\s:;,.-]*+", re.IGNORECASE)
_URL = re.compile(rf"https?:|{EMBEDDED}", re.IGNORECASE)
_QUERY_VALUE = re.compile(r"([?&][^=?&#]*=)[^&#]+")


def describe(settings: Settings) -> str:
    """Print the settings with their defaults and with secrets as `********`.

    Secrets are masked by type. Values in `FREE_TABLES` and arguments of commands are masked unless they are
    known to be harmless. In URLs the user, the query values and random-looking path segments are masked.
    """
    return "\n\n".join(_blocks(settings)) + "\n"


def _blocks(settings: Settings) -> Iterator[str]:
    for name, value in _fields(settings).items():
        if isinstance(value, Routes):
            models = {"models": value.models} if value.models else {}
            yield from _table((name,), {"default": value.default, **value.endpoints, **models})
        elif isinstance(value, Section):
            yield from _table((name,), _fields(value))
        elif isinstance(value, Mapping):
            for key, section in value.items():
                yield from _table((name, key), _fields(section))


def _fields(section: Section) -> dict[str, object]:
    """Return the fields that are set, under their names in the file."""
    fields = {
        field.alias or name: getattr(section, name) for name, field in type(section).model_fields.items()
    }
    return {name: value for name, value in fields.items() if value is not None}


def _table(path: tuple[str, ...], fields: Mapping[str, object]) -> Iterator[str]:
    """Write one block for the table itself, and one for each table in its arrays."""
    arrays = {key: value for key, value in fields.items() if isinstance(value, tuple) and value}
    arrays = {key: value for key, value in arrays.items() if isinstance(value[0], Section)}
    yield _block(f"[{dotted(path)}]", {key: value for key, value in fields.items() if key not in arrays})
    for key, sections in arrays.items():
        for section in sections:
            yield _block(f"[[{dotted((*path, key))}]]", _fields(section))


def _block(header: str, fields: Mapping[str, object]) -> str:
    return "\n".join([header, *_pairs(fields)])


def _pairs(fields: Mapping[str, object]) -> Iterator[str]:
    for key, value in fields.items():
        yield f"{dotted((key,))} = {_field(key, value)}"


def _field(key: str, value: object) -> str:
    """Write the value of a field, masked according to the field."""
    if key == "sha256":
        return quoted(MASK)
    if key == "json" or (key in FREE_TABLES and isinstance(value, Mapping | tuple)):
        return _free_value(key, value)
    if key == "command" and isinstance(value, tuple):
        return _array([_value(value[0]), *map(_argument, value[1:])])
    if key == "basic" and isinstance(value, tuple):
        user, password = value
        is_key = isinstance(user, str) and is_random(user)
        return _array([quoted(MASK) if is_key else _value(user), _free_value("", password)])
    return _value(value)


def _value(value: object) -> str:
    if isinstance(value, Section):
        return _inline(_pairs(_fields(value)))
    if isinstance(value, Mapping):
        return _inline(f"{dotted((key,))} = {_value(item)}" for key, item in value.items())
    if isinstance(value, tuple):
        return _array(map(_value, value))
    if isinstance(value, Secret | Interpolated):
        return quoted(MASK)
    if isinstance(value, LateText):
        return quoted(_references(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | int | float | None):
        return json.dumps(value)
    return quoted(mask_url(str(value)))


def _free_value(name: str, value: object) -> str:
    """Write a value of a free table; items of a list are masked according to the key of the list."""
    if isinstance(value, Mapping):
        return _inline(f"{dotted((key,))} = {_free_value(key, item)}" for key, item in value.items())
    if isinstance(value, tuple):
        return _array(_free_value(name, item) for item in value)
    if isinstance(value, LateText) or (not isinstance(value, Interpolated) and is_harmless(name, value)):
        return _value(value)
    return quoted(MASK)


def _argument(value: object) -> str:
    """Write an argument of a command; only names of options are shown."""
    return quoted(value if isinstance(value, str) and _OPTION.fullmatch(value) else MASK)


def _references(text: LateText) -> str:
    """Write a text with its late references, and mask the text between them."""
    return "".join(
        f"${{{part.kind}{f':{part.name}' if part.name else ''}}}"
        if isinstance(part, LateReference)
        else part
        if _SCHEME.fullmatch(part)
        else MASK
        for part in text.parts
    )


def _array(items: Iterable[str]) -> str:
    return f"[{', '.join(items)}]"


def _inline(pairs: Iterable[str]) -> str:
    text = ", ".join(pairs)
    return f"{{ {text} }}" if text else "{}"


def mask_url(text: str) -> str:
    """Mask the user, the query values and random-looking path segments of a URL; other text is unchanged.

    Some issuers and gateways expect a key in the path.
    """
    if not _URL.match(text):
        return text
    userinfo, at, _ = urlsplit(text).netloc.rpartition("@")
    before, question, query = text.partition("?")
    before = before.replace(userinfo + at, f"{MASK}@", 1) if at else before
    segments = [MASK if is_random(segment) else segment for segment in before.split("/")]
    return "/".join(segments) + _QUERY_VALUE.sub(rf"\g<1>{MASK}", question + query)
