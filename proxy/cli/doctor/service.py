"""Start the service for the test, with tokens that have already been fetched."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping

from proxy.app import create_app
from proxy.cli.server import open_sockets
from proxy.credentials.token import FetchedToken
from proxy.secret import Secret
from proxy.server.config import ServerConfig
from proxy.server.serve import serve
from proxy.settings import CallerKey, Settings, StaticCredential, Upstream
from proxy.settings.credentials.section import CredentialSection
from proxy.task_groups import task_group


def with_tokens(settings: Settings, tokens: Mapping[str, FetchedToken]) -> Settings:
    """Return settings whose credentials are fetched tokens, so that each is fetched only once.

    An upstream without a token loses its credential, so that the others can be tested.
    """
    credentials = {name: _static(settings.credentials[name], token.secret) for name, token in tokens.items()}
    upstreams = {
        name: section if section.credential in tokens else section.model_copy(update={"credential": None})
        for name, section in settings.upstreams.items()
    }
    changes = {"credentials": credentials, "upstreams": upstreams, "shared": None}
    return settings.model_copy(update=changes)


def _static(section: CredentialSection, token: Secret) -> StaticCredential:
    kept = {key: getattr(section, key) for key in CredentialSection.model_fields}
    kept |= {"source": "static", "sharing": "local", "value": token, "file": None}
    return StaticCredential.model_construct(**kept)


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Upstream]:
    """Serve the API, without the chat, on a free loopback port; yield its address and its key."""
    key = secrets.token_hex(24)
    caller = CallerKey(name=f"doctor-{key[:8]}", key=Secret(key))
    changes = {"keys": (*settings.access.keys, caller), "sharing": "local"}
    access = settings.access.model_copy(update=changes)
    served = settings.model_copy(update={"access": access, "chat": None, "cors": None})
    sockets = open_sockets(["127.0.0.1:0"], backlog=16)
    host, port = sockets[0].getsockname()[:2]
    server = ServerConfig()
    server.accesslog, server.errorlog = None, None
    server.graceful_timeout = 1.0
    stop = asyncio.Event()
    async with task_group() as group:
        group.create_task(serve(create_app(served), server, sockets, stop.wait))
        try:
            yield Upstream.model_validate(
                {"base_url": f"http://{host}:{port}/v1", "headers": {"authorization": f"Bearer {key}"}}
            )
        finally:
            stop.set()
