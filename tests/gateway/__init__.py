"""Tests of the demonstration gateway; each module mirrors one of `proxy/gateway/`."""
