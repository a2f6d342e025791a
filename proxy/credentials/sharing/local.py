"""One process for itself: the credential is kept in its memory."""

from proxy.credentials.credential import Credential, mint
from proxy.credentials.refresh_policy import RefreshPolicy
from proxy.credentials.sharing import Fetch, Known
from proxy.credentials.store import MemoryTokenStore


class LocalSharing:
    """Shares within a process, also with a machine that a reload builds anew for the same credential.

    Args:
        name: Its key in the store: the same for the same credential by the same recipe, and no other one.
        store: The memory of the process.
        policy: Clock and dice.
    """

    def __init__(self, name: str, store: MemoryTokenStore, policy: RefreshPolicy) -> None:
        self._name = name
        self._store = store
        self._policy = policy

    async def bring(self, fetch: Fetch, known: Known) -> Credential:
        """Return what the memory holds, or else what the source gives."""
        started = self._policy.clock()
        kept = await self._store.get(self._name)
        if (
            kept is not None
            and kept.generation > known.generation
            and started < kept.soft
            and known.is_news(kept, started)
        ):
            return kept
        credential = mint(
            await fetch(),
            generation=max(known.generation, kept.generation if kept else 0) + 1,
            obtained=started,
            uniform=self._policy.uniform,
            longest=known.longest,
        )
        await self._store.put(credential, self._name, self._policy.clock())
        return credential
