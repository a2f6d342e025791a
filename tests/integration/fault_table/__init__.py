"""The table of faults times calls: what clients make of each fault of an upstream, without and with repairs.

`python -m tests.integration.fault_table` prints it; `tests/integration/test_fault_table.py` checks it.
"""
