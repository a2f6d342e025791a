"""A fleet of real proxies, one Redis and one issuer, attacked while callers send requests at a steady pace.

Each proxy, the issuer, the upstream, the relays, the callers and Redis run in separate processes. No two of
them share an event loop, so none can distort the measurements of another.

    issuer <- relay of each member <-  member 1..n  <- callers
    Redis  <- relay of each member <-  member 1..n  -> upstream

Each member reaches the issuer and Redis through separate relays, which can hang, refuse, answer 403 or
delay. A token contains its announced and its true expiry, signed by the issuer. The upstream checks both, and
counts every expired token that a member sends.

`python -m tests.fleet` runs every attack and prints a table; `test_attacks.py` holds a short form of each.

A gap is the time between two good answers from the same member. On a busy machine a gap may have nothing to
do with the service: the callers, the upstream or the proxies got no CPU. The callers therefore send requests
to two controls at the same pace: to the upstream itself, and to a proxy with a static token. Whenever a
control gets no good answer for longer than `measure.STALL_SECONDS`, that time is subtracted from the gaps of
the members. The same goes for the times in which the event loop of a helper stalled, and in which the member
itself was ready to run and waited for a processor, as the kernel counts it. The rest belongs to the token
service; a member that blocks its own loop is not excused. The table shows the stalls beside the gaps: where
they are long, the figures say little, and the run is worth repeating on a calmer machine.
"""
