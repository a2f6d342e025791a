"""The token endpoint of the tests."""

from tests.credentials.sources.conftest import endpoint as endpoint
