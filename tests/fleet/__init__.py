"""A fleet of real processes with one Redis and one issuer: how often is a token fetched, what do callers see.

`python -m tests.fleet` runs it on two hosts of its own (network namespaces: Linux, root); the suite runs a
smaller one on this machine.
"""
