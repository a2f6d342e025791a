"""Policies that walk everything: each route is guarded or marked, each error has an envelope."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from quart import Quart

from proxy import blueprints, errors
from proxy.access import is_public
from proxy.app import check_request, create_app, finish_headers
from proxy.errors import ErrorEnvelope, ProxyError
from proxy.settings import load_settings
from proxy.wire.paths import BASE_URLS
from tests.conftest import SETTINGS, STATIC

PUBLIC = {
    "/",
    *BASE_URLS,
    "/livez",
    "/readyz",
    "/healthz",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/internal/credential",
}  # the last has its own secret
OF_THE_STATUS_PAGE = {"", "/events", "/sign-in", "/sign-out", "/page/<name>"}
"""They have a key of their own, see tests/blueprints/test_status.py."""


@pytest.fixture
def app(tmp_path: Path) -> Quart:
    path = tmp_path / "proxy.toml"
    path.write_text(
        SETTINGS.format(key="sk-x", upstream="http://127.0.0.1:1", credential=STATIC, options="", more="")
    )
    return create_app(load_settings(path, {}))


def test_no_other_route_is_public(app: Quart) -> None:
    open_rules = {
        str(rule) for rule in app.url_map.iter_rules() if is_public(app.view_functions[rule.endpoint])
    }
    assert open_rules == PUBLIC | {f"/status{path}" for path in OF_THE_STATUS_PAGE}


def test_the_map_of_routes_names_the_module_of_each_path(tmp_path: Path) -> None:
    path = tmp_path / "proxy.toml"
    more = "[chat]\n"
    path.write_text(
        SETTINGS.format(key="sk-x", upstream="http://127.0.0.1:1", credential=STATIC, options="", more=more)
    )
    app = create_app(load_settings(path, {}))
    rows = re.findall(r"^(/\S*) +(\w+)\.py\b", blueprints.__doc__ or "", re.MULTILINE)
    bare_paths = 0
    for rule in app.url_map.iter_rules():
        module = app.view_functions[rule.endpoint].__module__.rpartition(".")[2]
        path_of_rule = rule.rule.removeprefix("/agent/api/llm_proxy") or "/"
        if path_of_rule.startswith("/<any("):  # OpenAI's paths without /v1
            assert module == "llm_proxy"
            bare_paths += 1
            continue
        matches = [row for row in rows if row[0] == path_of_rule] or [
            row for row in rows if fnmatchcase(path_of_rule, row[0])
        ]
        assert max(matches, key=lambda row: len(row[0]))[1] == module, rule.rule
    assert bare_paths == 4
    assert all((Path(blueprints.__file__).parent / f"{module}.py").exists() for _, module in rows)


def test_the_routes_of_the_original_exist_one_to_one(app: Quart) -> None:
    rules = {str(rule): rule.methods for rule in app.url_map.iter_rules()}
    for path in ("chat/completions", "embeddings"):
        assert "POST" in (rules[f"/agent/api/llm_proxy/v1/{path}"] or set())
        assert "POST" in (rules[f"/v1/{path}"] or set())


def test_relayed_requests_which_skip_the_hooks_of_quart_miss_none(app: Quart) -> None:
    names = [None, *(name for name in app.blueprints if name.startswith("api_llm_proxy"))]
    assert len(names) == 3
    assert [hook for name in names for hook in app.before_request_funcs[name]] == [check_request]
    assert [hook for name in names for hook in app.after_request_funcs[name]] == [finish_headers]
    assert not any(app.url_value_preprocessors[name] for name in names)
    assert not any(app.teardown_request_funcs[name] for name in names)
    assert not app.teardown_appcontext_funcs


def all_errors(root: type[ProxyError] = ProxyError) -> list[type[ProxyError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in all_errors(child))]


@pytest.mark.parametrize("kind", all_errors())
def test_every_error_has_a_status_a_code_and_a_message_that_clients_classify_correctly(
    kind: type[ProxyError],
) -> None:
    arguments: dict[type[ProxyError], object] = {errors.BodyTooLarge: 10, errors.InvalidResponse: "HTML"}
    error = kind(arguments[kind]) if kind in arguments else kind()  # type: ignore[arg-type]
    envelope: ErrorEnvelope = error.envelope()
    assert set(envelope["error"]) == {"message", "type", "param", "code"}
    assert 400 <= error.status < 600
    assert kind.code in (errors.__doc__ or "") or kind in {errors.UpstreamError, errors.CredentialError}
    assert kind.__name__ in (errors.__doc__ or "")
    words = str(error).lower()
    if kind.status == 503 and kind is not errors.Draining:
        assert "Retry-After" in error.headers
    if kind in {errors.TokenUnavailable, errors.Aborted}:
        # RAGFlow never retries an error with these words. With those below, it would, even after output.
        assert not any(word in words for word in ("auth", "key", "quota", "capacity", "credit"))
    if kind is errors.Aborted:
        assert not any(word in words for word in ("server", "rate limit", "503", "502", "500"))
    if kind is errors.TokenRejected:
        assert "auth" in words
