"""Tests of the credentials; each module mirrors one of `proxy/credentials/`."""
