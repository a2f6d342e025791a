"""The OpenAPI document: valid, complete, and true to the routing."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from quart import Quart

from proxy.api_docs.openapi import describe_api
from proxy.api_docs.own_routes import OWN_ROUTES
from proxy.app import create_app
from proxy.blueprints import llm_proxy
from proxy.errors import ProxyError
from proxy.settings import load_settings
from proxy.wire.endpoints import ENDPOINT_NAMES, OTHER
from proxy.wire.paths import BASE_URLS, ORIGINAL_MOUNT, find_target
from tests.conftest import SETTINGS, STATIC

ALL = frozenset({"operations", "chat", "status"})
DOCUMENT: dict[str, Any] = json.loads(json.dumps(describe_api(ALL)))
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
def app(tmp_path: Path) -> Quart:
    path = tmp_path / "proxy.toml"
    more = '[chat]\n[status]\nkey = "status-key-8f3a-5b20"\n'
    path.write_text(
        SETTINGS.format(key="sk-x", upstream="http://127.0.0.1:1", credential=STATIC, options="", more=more)
    )
    return create_app(load_settings(path, {}))


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each path, method and operation."""
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS & {*item}:
            yield path, method, item[method]


@pytest.mark.parametrize("groups", [frozenset({"operations"}), ALL])
def test_it_is_valid_openapi_3_1(groups: frozenset[str]) -> None:
    document = json.loads(json.dumps(describe_api(groups)))
    assert document["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_the_validator_finds_faults() -> None:
    broken = json.loads(json.dumps(DOCUMENT))
    del broken["paths"]["/livez"]["get"]["responses"]["200"]["description"]
    assert [*OpenAPIV31SpecValidator(broken).iter_errors()]


def test_each_own_route_is_described_with_its_methods(app: Quart) -> None:
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if llm_proxy.blueprint.name not in rule.endpoint and rule.rule not in BASE_URLS
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    served = {(path, method) for path, method in served if path != "/" or method == "get"}
    described = {(route.path, route.method) for route in OWN_ROUTES}
    assert served - {("/internal/credential", "get")} == described  # that one is only for nginx


def test_each_relayed_operation_is_marked_and_has_no_schema() -> None:
    relayed = [operation for path, _, operation in operations() if path.startswith(("/v1/", "/v2/"))]
    assert len(relayed) > 200
    for operation in relayed:
        assert operation["x-relayed"] is True
        assert operation["tags"] == ["relayed"]
        contents = [operation["requestBody"]["content"]] if "requestBody" in operation else []
        contents += [operation["responses"]["default"].get("content", {})]
        assert all(media == {} for content in contents for media in content.values())
    own = [operation for path, _, operation in operations() if not path.startswith(("/v1/", "/v2/"))]
    assert not any("x-relayed" in operation for operation in own)


def test_each_operation_is_described_as_it_is_routed() -> None:
    for path, method, operation in operations():
        if "x-relayed" not in operation:
            continue
        sample = re.sub(r"\{\w+\}", "x", path)
        for mount in (sample, f"{ORIGINAL_MOUNT}{sample}"):
            endpoint = find_target(method.upper(), mount.encode()).endpoint
            assert endpoint.name == operation["x-endpoint"], (method, path)
            assert endpoint.for_limited_keys == operation["x-limited-keys"]
            assert (endpoint.stream is not None and not endpoint.websocket) == (
                "text/event-stream" in operation["responses"]["default"]["content"]
            )
        if operation["x-without-version"] and path.startswith("/v1/"):
            assert find_target(method.upper(), sample.removeprefix("/v1").encode()).endpoint is endpoint


def test_every_endpoint_of_the_table_is_described() -> None:
    names = {operation["x-endpoint"] for _, _, operation in operations() if "x-relayed" in operation}
    assert names == ENDPOINT_NAMES | {OTHER.name}


def test_no_own_route_is_also_relayed() -> None:
    for route in OWN_ROUTES:
        with pytest.raises(ProxyError):
            find_target(route.method.upper(), route.path.encode())


def test_operations_have_unique_names() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len({*names})
