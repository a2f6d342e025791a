"""What makes two recipes the same: everything that is asked, secrets included (pure)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxy.secret import Secret
from proxy.settings import Credential
from proxy.settings.interpolation import LateReference, LateText
from proxy.settings.section import Section


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
                field: _plain(getattr(value, field), sections)
                for field in type(value).model_fields
                if field not in _NOT_ASKED
            }
        case Mapping():
            return {"table": {str(key): _plain(item, sections) for key, item in value.items()}}
        case list() | tuple():
            return [_plain(item, sections) for item in value]
        case Path():
            return str(value)
        case _:
            return value


def _part(part: str | LateReference, sections: Mapping[str, Credential]) -> Any:
    if isinstance(part, str):
        return part
    # A token that is shown to get this one makes a difference by its own recipe, not by its name.
    return [part.kind, _plain(sections[part.name], sections) if part.name else ""]


_NOT_ASKED = frozenset({"inject", "invalidate_on", "reissue", "sharing", "timeout"})
