"""Rules about paths, headers, bodies and event streams: pure functions and small machines, no I/O."""
