"""Named cures for what clients and gateways get wrong: each is off until it is named (pure).

With none on, bytes are untouched; with some on, what none of them changes is.
"""

from proxy.wire.repairs.answers import repair_answer
from proxy.wire.repairs.catalogue import (
    DECODE_TOKEN_IDS,
    REPAIRS,
    SETS,
    Repair,
    Repairs,
    known_names,
    resolve,
)
from proxy.wire.repairs.request import repair_request
from proxy.wire.repairs.streams import StreamRepairer
from proxy.wire.repairs.token_ids import ReadIds, refuse_ids
from proxy.wire.repairs.vendor_errors import ErrorInside

__all__ = [
    "DECODE_TOKEN_IDS",
    "REPAIRS",
    "SETS",
    "ErrorInside",
    "ReadIds",
    "Repair",
    "Repairs",
    "StreamRepairer",
    "known_names",
    "refuse_ids",
    "repair_answer",
    "repair_request",
    "resolve",
]
