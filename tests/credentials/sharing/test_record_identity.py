"""When two recipes share a token: if everything in their requests is equal."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from proxy.credentials.sharing.record import identity_of
from proxy.settings import AzureCredential, BedrockCredential, CredentialSettings, GoogleCredential
from proxy.settings.interpolation import Interpolation

OAUTH2 = {
    "source": "oauth2", "token_url": "https://a.example/t", "client_id": "id", "client_secret": "s3cret",
    "scope": "one", "audience": "llm",
}  # fmt: skip
HTTP = {"source": "http", "url": "https://a.example/t", "token": "t", "json": {"a": ["b", 1], "c": None}}


def identity(values: dict[str, Any], **others: dict[str, Any]) -> bytes:
    """Return the identity of a section among others, as loaded from settings."""
    tree = Interpolation({}, Path()).tree({"corp": values, **others}, ("credentials",))
    assert isinstance(tree, dict)
    adapter: TypeAdapter[CredentialSettings] = TypeAdapter(CredentialSettings)
    sections = {name: adapter.validate_python(section) for name, section in tree.items()}
    return identity_of("corp", sections)


@pytest.mark.parametrize(
    "change",
    [
        {"client_secret": "other"},
        {"client_id": "other"},
        {"token_url": "https://b.example/t"},
        {"scope": "two"},
        {"audience": "other"},
        {"auth": "post"},
        {"params": {"x": "y"}},
    ],
)
def test_any_other_request_is_another_recipe(change: dict[str, Any]) -> None:
    assert identity({**OAUTH2, **change}) != identity(OAUTH2)


@pytest.mark.parametrize(
    "change",
    [{"inject": {"query": "t"}}, {"timeout": 3}, {"sharing": "redis"}, {"invalidate_on": [{"status": 403}]}],
)
def test_the_use_of_the_token_is_not_part_of_the_recipe(change: dict[str, Any]) -> None:
    assert identity({**OAUTH2, **change}) == identity(OAUTH2)


def test_a_key_file_is_identified_by_its_content(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("one.json", "same.json", "other.json"))
    for path, key in ((one, "a"), (same, "a"), (other, "b")):
        path.write_text(f'{{"type": "service_account", "key": "{key}"}}')
    identities = [identity({"source": "google", "file": str(path)}) for path in (one, same, other)]
    assert identities[0] == identities[1] != identities[2]


def test_a_token_file_is_identified_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one")
    azure = {
        "source": "azure", "scope": "s/.default", "method": "workload_identity", "tenant_id": "t",
        "client_id": "c", "token_file": str(path),
    }  # fmt: skip
    before = identity(azure)
    path.write_text("two")
    assert identity(azure) == before


def identity_with(section: dict[str, Any], **environ: str) -> bytes:
    """Return the identity of a section in a service with this environment."""
    adapter: TypeAdapter[CredentialSettings] = TypeAdapter(CredentialSettings)
    return identity_of("corp", {"corp": adapter.validate_python(section, context={"environ": environ})})


def test_a_command_is_identified_by_the_variables_that_it_inherits_by_choice() -> None:
    def of(**environ: str) -> bytes:
        section = {"source": "exec", "command": ["/bin/echo", "token"], "inherit": ["PATH", "HOME", "ROLE"]}
        return identity_with(section, **environ)

    assert of(ROLE="one", HOME="/root") == of(ROLE="one", HOME="/home/llm")
    assert len({of(ROLE="one"), of(ROLE="two"), of()}) == 3


CLOUDS: dict[str, dict[str, Any]] = {
    "azure": {"source": "azure", "scope": "https://a.example/.default"},
    "google": {"source": "google"},
    "bedrock": {"source": "bedrock", "region": "us-east-1"},
}
CHOICES = {
    "azure": AzureCredential.choices,
    "google": GoogleCredential.choices,
    "bedrock": BedrockCredential.choices,
}


@pytest.mark.parametrize(
    ("source", "name"), [(source, name) for source, names in CHOICES.items() for name in names]
)
def test_a_cloud_is_identified_by_the_variables_with_which_its_sdk_chooses(source: str, name: str) -> None:
    values: list[dict[str, str]] = [{name: "team-a"}, {name: "team-b"}, {}]
    assert len({identity_with(CLOUDS[source], **environ) for environ in values}) == 3


@pytest.mark.parametrize("source", CLOUDS)
def test_a_variable_of_each_instance_does_not_identify_a_cloud(source: str) -> None:
    own = {"IDENTITY_HEADER": "1", "HOSTNAME": "a", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/1"}
    assert identity_with(CLOUDS[source], **own) == identity_with(CLOUDS[source])


def test_a_key_file_in_the_environment_is_identified_by_its_content(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("one.json", "same.json", "other.json"))
    for path, key in ((one, "a"), (same, "a"), (other, "b")):
        path.write_text(key)
    of_one, of_same, of_other = (
        identity_with(CLOUDS["google"], GOOGLE_APPLICATION_CREDENTIALS=str(path))
        for path in (one, same, other)
    )
    assert of_one == of_same != of_other


def test_similar_shapes_are_distinguished() -> None:
    bodies = [{"a": "1"}, {"a": 1}, {"a": ["1"]}, {"a": {"secret": "1"}}, {"a": None}, {}]
    assert len({identity({**HTTP, "json": body}) for body in bodies}) == len(bodies)


def test_another_credential_is_identified_by_its_recipe_not_its_name() -> None:
    exchange = {**HTTP, "json": {"subject": "${credential:k8s}"}}
    other = {**HTTP, "json": {"subject": "${credential:renamed}"}}
    k8s = {"source": "static", "value": "one"}
    assert identity(exchange, k8s=k8s) == identity(other, renamed=k8s)
    assert identity(exchange, k8s=k8s) != identity(exchange, k8s={**k8s, "value": "two"})
