"""All repairs in the order in which they run, and the sets of repairs that clients need."""

from collections.abc import Iterable, Mapping
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
    vendor_errors,
)
from proxy.wire.repairs.repair import CLIENTS, Repair, Repairs

_IN_ORDER: Final[tuple[Repair, ...]] = (
    *requests.REPAIRS,
    *vendor_errors.REPAIRS,
    *responses.REPAIRS,
    *conversions.REPAIRS,
    *streams.REPAIRS,
    *chat.REPAIRS,
    *embeddings.REPAIRS,
    *rerank.REPAIRS,
    *usage.REPAIRS,
)
REPAIRS: Final[Mapping[str, Repair]] = MappingProxyType(
    {repair.name: repair for repair in sorted(_IN_ORDER, key=lambda repair: repair.name)}
)
"""All repairs by name, sorted."""
SETS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {client: tuple(name for name, repair in REPAIRS.items() if client in repair.sets) for client in CLIENTS}
)
"""The names of the repairs that each client needs, by the name of the client."""


def known_names() -> tuple[str, ...]:
    """Return the names that the settings may use: the sets, then the single repairs."""
    return (*SETS, *REPAIRS)


def resolve(names: Iterable[str]) -> Repairs:
    """Return the repairs that these names of sets and single repairs refer to.

    Raises:
        KeyError: A name is neither a set nor a repair.
    """
    wanted: set[str] = set()
    for name in names:
        wanted.update(SETS[name] if name in SETS else (REPAIRS[name].name,))
    return Repairs(tuple(repair for repair in _IN_ORDER if repair.name in wanted))
