"""Every credential of a configuration by its name; what did not change goes over to the next one."""

from dataclasses import dataclass

from proxy.credentials.suspicion import Purpose
from proxy.credentials.token_use import TokenUse
from proxy.credentials.upstream_credential import UpstreamCredential
from proxy.telemetry import TokenReading


class Others:
    """The other credentials, for the source of one that shows their tokens: those of the newest registry."""

    def __init__(self, registry: "CredentialRegistry") -> None:
        self.registry = registry

    def use(self, name: str, endpoint: str) -> TokenUse:
        """Begin to use a token at an endpoint."""
        return self.registry.use(name, endpoint)


@dataclass(slots=True)
class Held:
    """A credential, and how many registries hold it."""

    credential: UpstreamCredential
    recipe: object
    """Equal where the credential would be built alike."""
    others: Others
    holders: int = 1


class CredentialRegistry:
    """Credentials that are opened and closed together, but for those that another registry holds too."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    def add(
        self, name: str, credential: UpstreamCredential, recipe: object = None, others: Others | None = None
    ) -> None:
        """Take a new one in; others may ask for its token by this name."""
        self._held[name] = Held(credential, recipe, others or Others(self))

    def take_over(self, name: str, recipe: object, before: "CredentialRegistry") -> bool:
        """Hold the one that an earlier registry built by the same recipe, token and all; whether there is."""
        held = before._held.get(name)
        if held is None or held.recipe != recipe:
            return False
        held.holders += 1
        self._held[name] = held
        return True

    def take_charge(self) -> None:
        """Let those that were taken over find the others here from now on."""
        for held in self._held.values():
            held.others.registry = self

    def __getitem__(self, name: str) -> UpstreamCredential:
        return self._held[name].credential

    def use(self, name: str, endpoint: str) -> TokenUse:
        """Begin to use a token at an endpoint, for a request that holds it to get another token."""
        return TokenUse(self[name].source, f"credentials of {endpoint}", Purpose.of("POST", endpoint, None))

    def readings(self) -> list[TokenReading]:
        """How each of them stands now."""
        return [held.credential.source.reading() for held in self._held.values()]

    def prefetch(self) -> None:
        """Start a fetch of each that has no token, without waiting."""
        for held in self._held.values():
            if held.credential.source.remaining is None:
                held.credential.source.prefetch()

    async def close(self) -> None:
        """Stop every fetch and let go of the connections, unless another registry goes on with them."""
        held, self._held = [*self._held.values()], {}
        for each in held:
            each.holders -= 1
            if not each.holders:
                await each.credential.source.close()
