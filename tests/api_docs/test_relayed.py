"""The relayed paths in the description: each path of the table once, in OpenAPI's notation."""

from proxy.api_docs.relayed import METHODS, RelayedPath, relayed_paths
from proxy.wire.endpoints import OTHER, TABLE

PATHS: dict[str, RelayedPath] = {relayed.template: relayed for relayed in relayed_paths()}


def test_every_path_of_the_table_is_described_once() -> None:
    described = [relayed.template for relayed in relayed_paths()]
    assert len(described) == len({*described}) == len(PATHS)
    assert len(PATHS) == len({path for row in TABLE for path in row.paths or (row.name,)}) + 1


def test_wildcards_are_named_parameters() -> None:
    stored, model, rest = PATHS["chat/completions/{id}"], PATHS["models/{model}"], PATHS["videos/{path}"]
    assert stored.parameters == (("id", "The id of an object."),)
    assert model.parameters == (("model", "The id of a model. It may contain slashes."),)
    assert rest.parameters == (("path", "The rest of the path: one segment or more."),)
    assert PATHS["embeddings"].parameters == ()


def test_a_method_has_the_endpoint_that_serves_it() -> None:
    assert {*PATHS["embeddings"].endpoints} == {"POST"}
    assert {endpoint.name for endpoint in PATHS["videos"].endpoints.values()} == {"videos"}
    posted, listed = (PATHS["videos"].endpoints[method] for method in ("POST", "GET"))
    assert posted.form
    assert not listed.form


def test_the_last_path_stands_for_all_others() -> None:
    *_, last = relayed_paths()
    assert last.template == "{path}"
    assert last.endpoints == dict.fromkeys(METHODS, OTHER)
