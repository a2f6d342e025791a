"""`[status]`: the status page and its key."""

from typing import Annotated

from pydantic import AfterValidator

from proxy.secret import Secret
from proxy.settings.access import STRONG_KEY_LENGTH
from proxy.settings.fields import KeyText
from proxy.settings.section import Section, reject


def _strong(key: Secret) -> Secret:
    """Reject a key that could be guessed, because attempts are not counted."""
    if len(key.reveal()) < STRONG_KEY_LENGTH:
        reject(f"must have at least {STRONG_KEY_LENGTH} characters: `openssl rand -hex 24` generates one")
    return key


class StatusPage(Section):
    """The status page at /status. It exists only if this section does."""

    key: Annotated[KeyText, AfterValidator(_strong)]
    """The key for the page, which no caller may have."""
