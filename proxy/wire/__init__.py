"""Rules about paths, headers, bodies and event streams: pure functions and state machines without I/O."""
