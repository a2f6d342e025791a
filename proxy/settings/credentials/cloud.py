"""What the credentials of the clouds have beside: an SDK that must be there, and a way to its issuer."""

from importlib.util import find_spec
from typing import ClassVar

from pydantic import field_validator

from proxy.settings.credentials.section import CredentialSection
from proxy.settings.fields import CaFile
from proxy.settings.section import refuse
from proxy.settings.urls import ProxyUrl


class CloudSection(CredentialSection):
    """A source that stands on a cloud's own SDK: an extra of the distribution, of the source's name."""

    package: ClassVar[str]
    """The distribution that brings the SDK,"""
    modules: ClassVar[tuple[str, ...]]
    """and the packages that it consists of."""

    @field_validator("source")
    @classmethod
    def _has_its_sdk(cls, source: str) -> str:
        if not all(_is_installed(module) for module in cls.modules):
            refuse(f"{source} needs the package {cls.package}: pip install '.[{source}]'")
        return source


class IssuerSection(CloudSection):
    """A source whose SDK asks an issuer over HTTP."""

    ca_file: CaFile | None = None
    """PEM certificates to trust at the issuer instead of the system's."""
    proxy: ProxyUrl | None = None
    """An HTTP proxy to go through to https:// issuers; an identity endpoint on the host is asked directly."""
    trust_env: bool = False
    """Go through the proxies that the environment names (HTTPS_PROXY, NO_PROXY)."""


def _is_installed(module: str) -> bool:
    """Whether it can be found; only the packages above it are imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package above it is there
        return False
