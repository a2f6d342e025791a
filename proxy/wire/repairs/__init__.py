"""Named repairs of what clients and gateways get wrong; each is off until the settings name it.

Without repairs, bytes are untouched. So is whatever none of the named repairs changes. All take linear time.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from proxy.wire.repairs import (
    answers,
    chat,
    conversions,
    embeddings,
    requests,
    rerank,
    streams,
)
from proxy.wire.repairs.answers import repair_response
from proxy.wire.repairs.call import Call, read_call
from proxy.wire.repairs.registry import ReadIds, Repair, Repairs, all_repairs, all_sets, resolve
from proxy.wire.repairs.requests import DECODE_TOKEN_IDS, refuse_ids, repair_request
from proxy.wire.repairs.streams import StreamRepairer
from proxy.wire.repairs.vendor_errors import EmbeddedError

DECLARED_IN: Final = (answers, chat, conversions, embeddings, requests, rerank, streams)
"""The modules that declare repairs; importing them registers the repairs."""
REPAIRS: Final[Mapping[str, Repair]] = MappingProxyType(all_repairs())
"""Every repair by its name, sorted."""
SETS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(all_sets())
"""The repairs that each client needs, by the name of the client."""


def known_names() -> tuple[str, ...]:
    """Return every name that the settings may use: sets first, then single repairs."""
    return (*SETS, *REPAIRS)


__all__ = [
    "DECODE_TOKEN_IDS",
    "REPAIRS",
    "SETS",
    "Call",
    "EmbeddedError",
    "ReadIds",
    "Repair",
    "Repairs",
    "StreamRepairer",
    "known_names",
    "read_call",
    "refuse_ids",
    "repair_request",
    "repair_response",
    "resolve",
]
