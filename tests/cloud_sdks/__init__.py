"""Tests of `proxy.cloud_sdks`."""
