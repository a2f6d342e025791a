"""The token store in memory: it keeps tokens until they expire."""

import ast
from pathlib import Path

import aiocache

import proxy
from proxy.credentials import MemoryTokenStore
from tests.credentials.fakes import build_token, pass_time, virtually


@virtually
async def test_a_credential_is_kept_until_its_hard_end() -> None:
    store = MemoryTokenStore()
    token = build_token()
    await store.put(token, "corp", 1000.0)
    await pass_time(289.0)
    assert await store.get("corp") is token
    await pass_time(2.0)
    assert await store.get("corp") is None


@virtually
async def test_each_name_has_its_own_token() -> None:
    store = MemoryTokenStore()
    one, two = build_token("one"), build_token("two")
    await store.put(one, "one", 1000.0)
    await store.put(two, "two", 1000.0)
    assert (await store.get("one"), await store.get("two"), await store.get("three")) == (one, two, None)


@virtually
async def test_stores_share_nothing() -> None:
    await MemoryTokenStore().put(build_token(), "corp", 1000.0)
    assert await MemoryTokenStore().get("corp") is None


@virtually
async def test_a_newer_credential_outlives_the_end_of_the_older() -> None:
    store = MemoryTokenStore()
    await store.put(build_token(lifetime=10.0), "corp", 1000.0)
    newer = build_token(generation=2)
    await store.put(newer, "corp", 1000.0)
    await pass_time(20.0)
    assert await store.get("corp") is newer


@virtually
async def test_a_token_without_expiry_is_stored_and_an_expired_one_is_not() -> None:
    store = MemoryTokenStore()
    endless = build_token(lifetime=float("inf"))
    await store.put(endless, "endless", 1000.0)
    await store.put(build_token(), "gone", 1290.0)
    await pass_time(86400.0)
    assert await store.get("endless") is endless
    assert await store.get("gone") is None


@virtually
async def test_closing_forgets_everything() -> None:
    store = MemoryTokenStore()
    await store.put(build_token(), "corp", 1000.0)
    await store.put(build_token(), "other", 1000.0)
    await store.close()
    assert (await store.get("corp"), await store.get("other")) == (None, None)
    await store.close()


def test_only_the_memory_cache_of_aiocache_is_used() -> None:
    """aiocache's decorators log the value when a write fails, and its lock releases all waiters at once."""
    imported: dict[str, list[str]] = {}
    for path in Path(proxy.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiocache"):
                imported.setdefault(path.name, []).extend(alias.name for alias in node.names)
            assert not isinstance(node, ast.Import) or "aiocache" not in {alias.name for alias in node.names}
    assert imported == {"local.py": ["SimpleMemoryCache"]}
    assert aiocache.SimpleMemoryCache is not None
