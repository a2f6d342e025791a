"""Named repairs for faults of clients and gateways. A repair is off unless the settings name it.

Bytes that no enabled repair changes are forwarded untouched. All repairs take linear time.
"""

from proxy.wire.repairs.call import Call, read_call
from proxy.wire.repairs.catalogue import REPAIRS, SETS, known_names, resolve
from proxy.wire.repairs.repair import ReadIds, Repair, Repairs
from proxy.wire.repairs.requests import DECODE_TOKEN_IDS, reject_ids, repair_request
from proxy.wire.repairs.responses import repair_response
from proxy.wire.repairs.streams import StreamRepairer
from proxy.wire.repairs.vendor_errors import EmbeddedError

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
    "reject_ids",
    "repair_request",
    "repair_response",
    "resolve",
]
