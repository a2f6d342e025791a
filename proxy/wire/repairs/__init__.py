"""Named repairs for faults of clients and gateways. A repair is off unless the settings name it.

Bytes that no enabled repair changes are forwarded untouched. All repairs take linear time.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from proxy.wire.repairs import (
    chat,
    conversions,
    embeddings,
    requests,
    rerank,
    responses,
    streams,
    usage,
)
from proxy.wire.repairs.call import Call, read_call
from proxy.wire.repairs.registry import ReadIds, Repair, Repairs, all_repairs, all_sets, resolve
from proxy.wire.repairs.requests import DECODE_TOKEN_IDS, refuse_ids, repair_request
from proxy.wire.repairs.responses import repair_response
from proxy.wire.repairs.streams import StreamRepairer
from proxy.wire.repairs.vendor_errors import EmbeddedError

DECLARED_IN: Final = (responses, chat, conversions, embeddings, requests, rerank, streams, usage)
"""The modules that declare repairs. Importing them registers the repairs."""
REPAIRS: Final[Mapping[str, Repair]] = MappingProxyType(all_repairs())
"""All repairs by name, sorted."""
SETS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(all_sets())
"""The names of the repairs that each client needs, by the name of the client."""


def known_names() -> tuple[str, ...]:
    """Return the names that the settings may use: the sets, then the single repairs."""
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
