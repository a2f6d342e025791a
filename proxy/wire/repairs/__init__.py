"""Named cures for what clients and gateways get wrong: each is off until it is named (pure).

With none on, bytes are untouched; with some on, what none of them changes is.
"""

from proxy.wire.repairs.answers import repair_answer
from proxy.wire.repairs.catalogue import REPAIRS, SETS, Repair, Repairs, known_names, resolve
from proxy.wire.repairs.request import repair_request
from proxy.wire.repairs.streams import StreamRepairer
from proxy.wire.repairs.vendor_errors import ErrorInside

__all__ = [
    "REPAIRS",
    "SETS",
    "ErrorInside",
    "Repair",
    "Repairs",
    "StreamRepairer",
    "known_names",
    "repair_answer",
    "repair_request",
    "resolve",
]
