"""The floors: imports go down only, and each third-party library has its home."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import proxy

ROOT = Path(proxy.__file__).parent

FLOORS = {
    "proxy.errors": 0,
    "proxy.secret": 0,
    "proxy.wire": 0,
    "proxy.settings": 1,
    "proxy.telemetry": 1.5,
    "proxy.redis_connection": 2,
    "proxy.token_ids": 1.5,
    "proxy.credentials": 2,
    "proxy.recipe": 2.5,
    "proxy.upstream": 3,
    "proxy.access": 4,
    "proxy.caller_limits": 5,
    "proxy.counting": 4,
    "proxy.chat": 5,
    "proxy.drain": 4,
    "proxy.request_body": 5,
    "proxy.services": 6,
    "proxy.generations": 6,
    "proxy.asgi": 6,
    "proxy.blueprints": 7,
    "proxy.cors": 7.5,
    "proxy.app": 8,
    "proxy.cli": 9,
    "proxy.__main__": 10,
}
INSIDE = {  # floors within a room
    "proxy.wire.event_stream": 0,
    "proxy.upstream.transport": 0,
    "proxy.upstream.client": 1,
    "proxy.upstream.clock": 1,
    "proxy.upstream.breaker": 0,
    "proxy.upstream.balance": 0,
    "proxy.upstream.health": 1,
    "proxy.upstream.duplex": 2,
    "proxy.upstream.routing": 2,
    "proxy.upstream.relay": 3,
    "proxy.upstream.attempts": 4,
    "proxy.upstream.heartbeat": 4,
}
HOMES = {
    "aiocache": {"proxy.credentials.store", "proxy.credentials.sharing.redis_link"},
    "aiohttp": {"proxy.upstream.transport"},
    "authlib": {"proxy.credentials.sources.assertion"},
    "aws_bedrock_token_generator": {"proxy.credentials.sources.bedrock"},
    "azure": {"proxy.credentials.sources.azure"},
    "botocore": {"proxy.credentials.sources.bedrock"},
    "cryptography": {
        "proxy.credentials.sharing.seal",
        "proxy.credentials.sources.assertion",
        "proxy.settings.credentials.signing",
    },
    "google": {"proxy.credentials.sources.google"},
    "httpx2": {
        "proxy.credentials.sources.http_recipe",
        "proxy.upstream.client",
        "proxy.upstream.duplex",
        "proxy.upstream.transport",
    },
    "hypercorn": {
        "proxy.cli.server",
        "proxy.cli.serve",
        "proxy.cli.gateway",
        "proxy.cli.websocket_stream",
        "proxy.asgi",
        "proxy.blueprints.realtime",
        "proxy.gateway.connection",
    },
    "joserfc": {"proxy.credentials.sources.assertion"},
    "jwt": {"proxy.credentials.sources.jwt"},
    "latex2mathml": {"proxy.chat.formula"},
    "limits": {"proxy.caller_limits", "proxy.chat.visitor_rate", "proxy.counting"},
    "markdown_it": {"proxy.chat.markdown"},
    "mdit_py_plugins": {"proxy.chat.markdown"},
    "msgspec": {
        "proxy.wire",
        "proxy.app",
        "proxy.blueprints.chat_guard",
        "proxy.blueprints.realtime",
        "proxy.chat.upstream",
        "proxy.telemetry.logs",
        "proxy.gateway",
        "proxy.credentials.sharing.record",
    },
    "multidict": {"proxy.upstream.transport"},
    "nh3": {"proxy.chat.sanitizer"},
    "openai": {"proxy.upstream.client"},
    "prometheus_client": {"proxy.telemetry.metrics"},
    "purgatory": {"proxy.upstream.breaker"},
    "pydantic": {"proxy.settings"},
    "quart_cors": {"proxy.cors"},
    "quart": {
        "proxy.app",
        "proxy.asgi",
        "proxy.blueprints",
        "proxy.cors",
        "proxy.request_body",
        "proxy.gateway",
    },
    "pygments": {"proxy.chat.code_colours"},
    "redis": {"proxy.redis_connection", "proxy.credentials.sharing.redis_link", "proxy.chat.live_feed"},
    "requests": {"proxy.credentials.sources.google"},
    "structlog": {"proxy.telemetry.logs"},
    "tiktoken": {"proxy.token_ids"},
    "uvloop": {"proxy.cli.server"},
    "werkzeug": {"proxy.app", "proxy.blueprints.exchange", "proxy.gateway", "proxy.wire.form_body"},
    "wsproto": {"proxy.cli.websocket_stream"},
    "yarl": {"proxy.upstream.transport"},
}
STANDARD_NAMES_BANNED = {"create_task": {"proxy.credentials.cached_source"}}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module with its syntax tree."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = ["proxy", *path.relative_to(ROOT).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text())


MODULES = dict(modules())


def imports(tree: ast.Module) -> Iterator[str]:
    """Every module that is imported, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module


def floor(module: str) -> float:
    """The floor of the room that a module is in."""
    return max(
        (FLOORS[room] for room in FLOORS if module == room or module.startswith(room + ".")), default=-1
    )


def in_any(module: str, rooms: set[str]) -> bool:
    """Whether a module is one of these rooms, or in one."""
    return any(module == room or module.startswith(room + ".") for room in rooms)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "proxy"])
def test_imports_go_down_only(module: str) -> None:
    if module.startswith("proxy.gateway"):
        assert all(
            in_any(name, {"proxy.gateway"}) for name in imports(MODULES[module]) if name.startswith("proxy")
        )
        return
    assert floor(module) >= 0, "a new room: give it a floor"
    for imported in imports(MODULES[module]):
        if not imported.startswith("proxy.") or imported.startswith("proxy.gateway"):
            continue
        here, there = floor(module), floor(imported)
        assert there <= here, f"{imported} is upstairs"
        if module in INSIDE and imported in INSIDE and module.split(".")[1] == imported.split(".")[1]:
            assert INSIDE[imported] < INSIDE[module], f"{imported} is upstairs in the same room"


@pytest.mark.parametrize("module", list(MODULES))
def test_every_third_party_library_stays_at_home(module: str) -> None:
    for imported in imports(MODULES[module]):
        library = imported.partition(".")[0]
        if library in HOMES:
            assert in_any(module, HOMES[library]), f"{library} has no home in {module}"


@pytest.mark.parametrize("module", list(MODULES))
def test_every_module_says_what_it_is_for_and_stays_small(module: str) -> None:
    tree = MODULES[module]
    assert ast.get_docstring(tree), "no docstring"
    path = ROOT.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert len(path.read_text().splitlines()) <= 300
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 41, f"{node.name} is too long"


@pytest.mark.parametrize("module", list(MODULES))
def test_no_loose_tasks_and_no_globals(module: str) -> None:
    for node in ast.walk(MODULES[module]):
        assert not isinstance(node, ast.Global), "global"
        if isinstance(node, ast.Attribute) and node.attr == "create_task":
            owner = ast.unparse(node.value)
            assert owner == "group" or module == "proxy.credentials.cached_source", "a loose task"
