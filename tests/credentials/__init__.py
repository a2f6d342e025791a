"""Tests of the credentials; each module mirrors one of `proxy/credentials/`.

`test_invariant_NN_` stands for one promise of the design that must hold whatever else changes.
"""
