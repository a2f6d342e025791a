"""What makes two recipes the same: everything that is asked, secrets included (pure)."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from proxy.secret import Secret
from proxy.settings import Credential
from proxy.settings.interpolation import LateReference, LateText
from proxy.settings.section import Section

_NOT_ASKED: Final = frozenset(
    {
        "ca_file",
        "connect_timeout",
        "inject",
        "invalidate_on",
        "proxy",
        "reissue",
        "sharing",
        "timeout",
        "trust_env",
    }
)
_CHANGING: Final = frozenset({"cwd", "token_file"})
"""What lies there is another one every time: the place counts. Of keys and key files the content does."""


def identity_of(name: str, sections: Mapping[str, Credential]) -> bytes:
    """Bytes that are the same for the same recipe and differ for any other.

    They hold secrets: they are hashed with a key, and kept nowhere. The name is no part of them, nor is what
    happens to a token once it is there; a changed secret, URL, scope or audience is a different recipe.
    """
    return json.dumps(_plain(sections[name], sections), sort_keys=True).encode()


def _plain(value: Any, sections: Mapping[str, Credential]) -> Any:
    match value:
        case Secret():
            return {"secret": value.reveal()}
        case LateText():
            return {"late": [_part(part, sections) for part in value.parts]}
        case Section():
            return {
                field: _asked(field, getattr(value, field), sections)
                for field in type(value).model_fields
                if field not in _NOT_ASKED
            }
        case Mapping():
            return {"table": {str(key): _plain(item, sections) for key, item in value.items()}}
        case list() | tuple():
            return [_plain(item, sections) for item in value]
        case _:
            return value


def _asked(field: str, value: Any, sections: Mapping[str, Credential]) -> Any:
    if not isinstance(value, Path):
        return _plain(value, sections)
    path = value.absolute()
    if field in _CHANGING or not path.is_file():
        return {"path": str(path)}
    return {"content": hashlib.sha256(path.read_bytes()).hexdigest()}


def _part(part: str | LateReference, sections: Mapping[str, Credential]) -> Any:
    if isinstance(part, str):
        return part
    # A token that is shown to get this one makes a difference by its own recipe, not by its name.
    return [part.kind, _plain(sections[part.name], sections) if part.name else ""]
