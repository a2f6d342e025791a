"""What one section says about another: names that must exist, and the default that follows from them.

These checks read the tree itself, not the models, so that they report along with every other problem.
"""

from collections.abc import Iterator, Mapping

from proxy.settings.interpolation import LateText
from proxy.settings.locations import KeyPath
from proxy.settings.problems import Problem, listed, suggestion
from proxy.settings.urls import EMBEDDED
from proxy.wire.endpoints import ENDPOINT_NAMES


def with_routes(tree: Mapping[str, object]) -> dict[str, object]:
    """Give `[routes]` the shape of its model: the endpoints stand below a key of their own.

    A sole upstream is the default. `models` is an endpoint where it names an upstream, and holds the routes
    of models where it is an array of tables.
    """
    routes = tree.get("routes", {})
    if not isinstance(routes, dict):
        return dict(tree)
    endpoints, models = _endpoints_and_models(routes)
    upstreams = [*_table(tree, "upstreams")]
    default = routes.get("default", upstreams[0] if len(upstreams) == 1 else "")
    return {**tree, "routes": {"default": default, "endpoints": endpoints, "models": models}}


def _endpoints_and_models(routes: Mapping[str, object]) -> tuple[dict[str, object], list[object]]:
    models = routes.get("models")
    apart = {"default", "models"} if isinstance(models, list) else {"default"}
    endpoints = {key: value for key, value in routes.items() if key not in apart}
    return endpoints, models if isinstance(models, list) else []


def check_references(tree: Mapping[str, object]) -> Iterator[Problem]:
    """Find the names and `embedded:` URLs that lead nowhere."""
    yield from _check_routes(tree)
    credentials = _table(tree, "credentials")
    for name, upstream in _table(tree, "upstreams").items():
        credential = upstream.get("credential") if isinstance(upstream, dict) else None
        if isinstance(credential, str) and credential not in credentials:
            words = f"names no credential, {suggestion(credential, credentials)}"
            yield Problem(("upstreams", name, "credential"), words)
    yield from _check_fallbacks(_table(tree, "upstreams"))
    yield from _check_late(credentials)
    yield from _check_sharing(tree)
    yield from _check_chat(tree)
    if "gateway" not in tree:
        yield from _check_embedded(tree)


def _check_routes(tree: Mapping[str, object]) -> Iterator[Problem]:
    upstreams = _table(tree, "upstreams")
    if tree.get("upstreams") == {}:
        yield Problem(("upstreams",), "is required: add [upstreams.NAME] with a base_url")
    routes = _table(tree, "routes")
    if "default" not in routes and len(upstreams) > 1:
        yield Problem(("routes", "default"), f"is required: one of {listed(upstreams)}")
    endpoints, models = _endpoints_and_models(routes)
    for number, route in enumerate(models):
        target = route.get("upstream") if isinstance(route, dict) else None
        yield from _check_target(target, upstreams, ("routes", "models", number, "upstream"))
    default = {"default": routes["default"]} if "default" in routes else {}
    for key, target in {**default, **endpoints}.items():
        if key != "default" and key not in ENDPOINT_NAMES:
            yield Problem(("routes", key), f"unknown endpoint, {suggestion(key, ENDPOINT_NAMES)}")
        else:
            yield from _check_target(target, upstreams, ("routes", key))


def _check_target(target: object, upstreams: Mapping[str, object], path: KeyPath) -> Iterator[Problem]:
    """One upstream, or a table of several with their weights."""
    names = [target] if isinstance(target, str) else [*target] if isinstance(target, dict) else []
    for name in names if upstreams else []:
        if name not in upstreams:
            place = path if isinstance(target, str) else (*path, name)
            yield Problem(place, f"names no upstream, {suggestion(name, upstreams)}")


def _check_fallbacks(upstreams: Mapping[str, object]) -> Iterator[Problem]:
    """Each must exist, and none may lead back to where it began."""
    next_of = {
        name: upstream["fallback"]
        for name, upstream in upstreams.items()
        if isinstance(upstream, dict) and isinstance(upstream.get("fallback"), str)
    }
    for name, fallback in next_of.items():
        place = ("upstreams", name, "fallback")
        if fallback not in upstreams:
            yield Problem(place, f"names no upstream, {suggestion(fallback, upstreams)}")
        elif name in _reachable(fallback, {key: {value} for key, value in next_of.items()}):
            yield Problem(place, "leads back to this upstream")


def _check_late(credentials: Mapping[str, object]) -> Iterator[Problem]:
    """Tokens that requests for other tokens hold: each must exist, and no token may need itself."""
    needed: dict[str, set[str]] = {}
    for name, table in credentials.items():
        for path, text in _late_texts(table, ("credentials", name)):
            for other in text.credentials:
                needed.setdefault(name, set()).add(other)
                if other not in credentials:
                    words = f"${{credential:...}} names no credential, {suggestion(other, credentials)}"
                    yield Problem(path, words)
                elif name in _reachable(other, needed):
                    yield Problem(path, f"goes round in a circle: {listed({name, other})} need each other")


def _check_sharing(tree: Mapping[str, object]) -> Iterator[Problem]:
    if _table(tree, "access").get("sharing") == "redis" and "shared" not in tree:
        yield Problem(("access", "sharing"), "needs a [shared] section with a redis_url")
    for name, table in _table(tree, "credentials").items():
        if not isinstance(table, dict) or table.get("sharing") not in {"redis", "redis_required"}:
            continue
        place = ("credentials", name, "sharing")
        if table.get("source") in {"static", "file"}:
            yield Problem(place, "there is nothing to share: each process reads this token for itself")
        elif "shared" not in tree:
            yield Problem(place, "needs a [shared] section with a redis_url")


def _check_chat(tree: Mapping[str, object]) -> Iterator[Problem]:
    if not isinstance(tree.get("chat"), dict):
        return
    chat, upstreams = _table(tree, "chat"), _table(tree, "upstreams")
    upstream = chat.get("upstream")
    if upstreams and isinstance(upstream, str) and upstream not in upstreams:
        yield Problem(("chat", "upstream"), f"names no upstream, {suggestion(upstream, upstreams)}")
    if "shared" in tree and not chat.get("secret"):
        words = "is required beside [shared]: the processes of a fleet must take each other's sessions"
        yield Problem(("chat", "secret"), words)


def _late_texts(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, LateText]]:
    if isinstance(value, LateText):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _late_texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _late_texts(item, (*path, index))


def _reachable(start: str, needed: Mapping[str, set[str]]) -> set[str]:
    found, waiting = set[str](), [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += needed.get(name, ())
    return found


def _check_embedded(tree: Mapping[str, object]) -> Iterator[Problem]:
    for section in ("upstreams", "credentials"):
        for name, table in _table(tree, section).items():
            for key in ("base_url", "url", "token_url"):
                url = table.get(key) if isinstance(table, dict) else None
                if isinstance(url, str) and url.startswith(EMBEDDED):
                    yield Problem((section, name, key), "an embedded: URL needs a [gateway] section")


def _table(tree: Mapping[str, object], key: str) -> Mapping[str, object]:
    table = tree.get(key)
    return table if isinstance(table, dict) else {}
