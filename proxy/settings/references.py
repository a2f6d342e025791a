"""References between sections: names that must exist, and the default route that follows from them.

The checks read plain tables, so that their problems can be reported along with those of validation. They read
`Settings` as well, for a reload that combines parts of two configurations.
"""

from collections.abc import Iterator, Mapping

from proxy.settings.fields import EMBEDDED
from proxy.settings.interpolation import late_texts
from proxy.settings.section import KeyPath, Problem, Section, listed, suggestion
from proxy.wire.endpoints import ENDPOINT_NAMES

Tree = Mapping[str, object]


def with_routes(tree: Tree) -> dict[str, object]:
    """Give `[routes]` the structure of its model, with the endpoints below a key of their own.

    A sole upstream is the default. `models` is an endpoint if it names an upstream, and the routes of models
    if it is an array of tables.
    """
    routes = tree.get("routes", {})
    if not isinstance(routes, dict):
        return dict(tree)
    upstreams = [*_table(tree, "upstreams")]
    default = routes.get("default", upstreams[0] if len(upstreams) == 1 else "")
    models = routes.get("models")
    reserved = {"default", "models"} if isinstance(models, list) else {"default"}
    endpoints = {key: value for key, value in routes.items() if key not in reserved}
    models = models if isinstance(models, list) else []
    return {**tree, "routes": {"default": default, "endpoints": endpoints, "models": models}}


def reference_problems(tree: Tree | Section) -> Iterator[Problem]:
    """Find names and `embedded:` URLs that refer to nothing.

    Args:
        tree: What `with_routes` returns, or complete settings.
    """
    upstreams, credentials = _table(tree, "upstreams"), _table(tree, "credentials")
    yield from _route_problems(tree, upstreams)
    yield from _upstream_problems(upstreams, credentials)
    yield from _late_problems(credentials)
    yield from _sharing_problems(tree, credentials)
    yield from _chat_problems(tree, upstreams)
    yield from _offload_problems(tree, upstreams)
    if _get(tree, "gateway") is None:
        for section, tables in (("upstreams", upstreams), ("credentials", credentials)):
            for name, table in tables.items():
                for key in ("base_url", "url", "token_url"):
                    url = _get(table, key)
                    if isinstance(url, str) and url.startswith(EMBEDDED):
                        yield Problem((section, name, key), "an embedded: URL needs a [gateway] section")


def _route_problems(tree: Tree | Section, upstreams: Tree) -> Iterator[Problem]:
    if _get(tree, "upstreams") == {}:
        yield Problem(("upstreams",), "is required: add [upstreams.NAME] with a base_url")
    routes = _get(tree, "routes")
    default, models = _get(routes, "default"), _get(routes, "models")
    if default == "" and len(upstreams) > 1:
        yield Problem(("routes", "default"), f"is required: one of {listed(upstreams)}")
    elif default != "" or len(upstreams) == 1:
        yield from _target_problems(default, upstreams, ("routes", "default"))
    for number, route in enumerate(models if isinstance(models, list | tuple) else ()):
        path = ("routes", "models", number, "upstream")
        yield from _target_problems(_get(route, "upstream"), upstreams, path)
    for key, target in _table(routes, "endpoints").items():
        if key not in ENDPOINT_NAMES:
            words = f"unknown key or endpoint, {suggestion(key, ('default', *ENDPOINT_NAMES))}"
            yield Problem(("routes", key), words)
        else:
            yield from _target_problems(target, upstreams, ("routes", key))


def _target_problems(target: object, upstreams: Tree, path: KeyPath) -> Iterator[Problem]:
    """Check an upstream, or a table of several with weights."""
    names = [target] if isinstance(target, str) else [*target] if isinstance(target, Mapping) else []
    for name in names if upstreams else []:
        if name not in upstreams:
            yield _no_upstream(path if isinstance(target, str) else (*path, name), name, upstreams)


def _no_upstream(path: KeyPath, name: str, upstreams: Tree) -> Problem:
    return Problem(path, f"is not the name of an upstream, {suggestion(name, upstreams)}")


def _upstream_problems(upstreams: Tree, credentials: Tree) -> Iterator[Problem]:
    fallbacks: dict[str, set[str]] = {}
    for name, upstream in upstreams.items():
        credential, fallback = _get(upstream, "credential"), _get(upstream, "fallback")
        if isinstance(credential, str) and credential not in credentials:
            words = f"is not the name of a credential, {suggestion(credential, credentials)}"
            yield Problem(("upstreams", name, "credential"), words)
        elif isinstance(credential, str):
            written = _token_header(credentials[credential])
            for header in _table(upstream, "headers"):
                if header.lower().replace("_", "-") == written:
                    words = f"is overwritten by the token of the credential {credential}"
                    yield Problem(("upstreams", name, "headers", header), words)
        if isinstance(fallback, str):
            fallbacks[name] = {fallback}
    for name, (fallback,) in fallbacks.items():
        path = ("upstreams", name, "fallback")
        if fallback not in upstreams:
            yield _no_upstream(path, fallback, upstreams)
        elif name in _reachable(fallback, fallbacks):
            yield Problem(path, "leads back to this upstream")


def _token_header(credential: object) -> str | None:
    """Return the header that carries the token of a credential, in lower case; None if none does."""
    inject = _get(credential, "inject")
    if _get(inject, "query") is not None:
        return None
    header = _get(inject, "header")
    return header.lower().replace("_", "-") if isinstance(header, str) else "authorization"


def _late_problems(credentials: Tree) -> Iterator[Problem]:
    """Check credentials whose requests contain other tokens: no token may depend on itself."""
    needed: dict[str, set[str]] = {}
    for name, table in credentials.items():
        for path, text in late_texts(table, ("credentials", name)):
            for other in text.credentials:
                needed.setdefault(name, set()).add(other)
                if other not in credentials:
                    words = "${credential:...} is not the name of a credential, "
                    yield Problem(path, words + suggestion(other, credentials))
                elif name in _reachable(other, needed):
                    yield Problem(path, f"is circular: {listed({name, other})} need each other")


def _reachable(start: str, needed: Mapping[str, set[str]]) -> set[str]:
    found, waiting = set[str](), [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += needed.get(name, ())
    return found


def _sharing_problems(tree: Tree | Section, credentials: Tree) -> Iterator[Problem]:
    has_redis = _get(tree, "shared") is not None
    if _get(_get(tree, "access"), "sharing") == "redis" and not has_redis:
        yield Problem(("access", "sharing"), "needs a [shared] section with a redis_url")
    for name, table in credentials.items():
        if _get(table, "sharing") not in ("redis", "redis_required"):
            continue
        path = ("credentials", name, "sharing")
        if _get(table, "source") in ("static", "file"):
            yield Problem(path, "cannot be shared: each process reads this token for itself")
        elif not has_redis:
            yield Problem(path, "needs a [shared] section with a redis_url")


def _chat_problems(tree: Tree | Section, upstreams: Tree) -> Iterator[Problem]:
    chat = _get(tree, "chat")
    if not isinstance(chat, Mapping | Section):
        return
    upstream = _get(chat, "upstream")
    if upstreams and isinstance(upstream, str) and upstream not in upstreams:
        yield _no_upstream(("chat", "upstream"), upstream, upstreams)
    if _get(tree, "shared") is not None and not _get(chat, "secret"):
        words = "is required with [shared]: all processes of a fleet must accept the same sessions"
        yield Problem(("chat", "secret"), words)


def _offload_problems(tree: Tree | Section, upstreams: Tree) -> Iterator[Problem]:
    names = _get(_get(tree, "offload"), "upstreams")
    for number, name in enumerate(names if upstreams and isinstance(names, list | tuple) else ()):
        if isinstance(name, str) and name not in upstreams:
            yield _no_upstream(("offload", "upstreams", number), name, upstreams)


def _get(table: object, key: str) -> object:
    """Return a key of a plain table or of a section; None if there is none."""
    return table.get(key) if isinstance(table, Mapping) else getattr(table, key, None)


def _table(tree: object, key: str) -> Tree:
    table = _get(tree, key)
    return table if isinstance(table, Mapping) else {}
