"""The resolved settings as TOML-like text that can be shown: every secret in it is masked."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from proxy.secret import MASK, Secret
from proxy.settings.interpolation import Interpolated, LateText
from proxy.settings.models import Routes, Settings
from proxy.settings.problems import dotted, quoted
from proxy.settings.section import Section
from proxy.settings.urls import EMBEDDED

_TELLING = re.compile(
    r"secret|passw|pwd|token|auth|cookie|credential|signature|assertion|private|api[-_]?key|\bkey\b",
    re.IGNORECASE,
)
_URL = re.compile(rf"https?:|{EMBEDDED}", re.IGNORECASE)
_QUERY_VALUE = re.compile(r"([?&][^=&#]*=)[^&#]+")


def describe(settings: Settings) -> str:
    """Print the settings with their defaults and with secrets as `********`.

    Masked are what is a secret by type; what came from the environment or a file in a table whose keys the
    user names; what stands there under a telling name, such as `password`; and the values in a URL's query.
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
    """The fields that are set, under the names they have in the file."""
    fields = {
        field.alias or name: getattr(section, name) for name, field in type(section).model_fields.items()
    }
    return {name: value for name, value in fields.items() if value is not None}


def _table(path: tuple[str, ...], fields: Mapping[str, object]) -> Iterator[str]:
    """One block for the table itself, and one for each table in its arrays."""
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
        yield f"{dotted((key,))} = {_value(value, masked=key == 'sha256')}"


def _value(value: object, *, masked: bool) -> str:
    if isinstance(value, Section):
        return _inline(_pairs(_fields(value)))
    if isinstance(value, Mapping):
        return _inline(
            f"{dotted((key,))} = {_value(item, masked=masked or bool(_TELLING.search(key)))}"
            for key, item in value.items()
        )
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(item, masked=masked) for item in value) + "]"
    if isinstance(value, LateText) and not (masked and any(isinstance(part, str) for part in value.parts)):
        return quoted(value.written)
    if masked or isinstance(value, Secret | Interpolated | LateText):
        return quoted(MASK)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | int | float | None):
        return json.dumps(value)
    return quoted(_without_url_secrets(str(value)))


def _inline(pairs: Iterable[str]) -> str:
    text = ", ".join(pairs)
    return f"{{ {text} }}" if text else "{}"


def _without_url_secrets(text: str) -> str:
    if not _URL.match(text):
        return text
    userinfo, at, _ = urlsplit(text).netloc.rpartition("@")
    return _QUERY_VALUE.sub(rf"\g<1>{MASK}", text.replace(userinfo + at, f"{MASK}@", 1) if at else text)
