"""The order of the checks: each server once, none whose precondition has failed, and the right models."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.cli.doctor.findings import Finding
from proxy.cli.doctor.walk import CheckPlan, SettingsWalk, has_failed, walk_address
from proxy.settings import Settings, Upstream, load_settings
from tests.cli.doctor.gateways import answer
from tests.raw_upstream import RawUpstream, raw_upstream

ACCESS = '[[access.keys]]\nname = "ragflow"\nkey = "sk-a-long-key-of-mine"\n'


def upstream(name: str, url: str, credential: str = "") -> str:
    """A section of an upstream; the first one is the default."""
    lines = f'[upstreams.{name}]\nbase_url = "{url}/v1"\n'
    return lines + (f'credential = "{credential}"\n' if credential else "")


def credential(name: str, url: str, more: str = "") -> str:
    """A section of a credential with a token endpoint."""
    return (
        f'[credentials.{name}]\nsource = "http"\nurl = "{url}/token"\ntoken = "token"\n'
        f'expires = [{{ path = "expires_in", as = "seconds" }}]\n{more}\n'
    )


@asynccontextmanager
async def gateway() -> AsyncIterator[RawUpstream]:
    """A gateway with every fault, chosen by the first segment of the path."""
    async with raw_upstream(answer) as found:
        yield found


def settings(folder: Path, *sections: str) -> Settings:
    path = folder / "proxy.toml"
    path.write_text(ACCESS + '[routes]\ndefault = "chat"\n' + "".join(sections))
    return load_settings(path, {})


async def walked(settings: Settings, plan: CheckPlan) -> list[tuple[str, str]]:
    """The findings, each with its subject."""
    return [(found.subject, found.id) async for found in SettingsWalk(settings, plan).findings()]


def targets(gateway: RawUpstream) -> list[str]:
    """Return the method and target of each request, in order."""
    return [f"{each.head.split(b' ', 1)[0].decode()} {each.target.decode()}" for each in gateway.requests]


async def test_each_credential_is_fetched_once_and_each_server_is_reached_once(tmp_path: Path) -> None:
    begun: list[str] = []
    async with gateway() as place:
        found = await walked(
            settings(
                tmp_path,
                upstream("chat", f"{place.url}/sound", "corp"),
                upstream("other", f"{place.url}/sound", "corp"),
                credential("corp", f"{place.url}/sound"),
            ),
            CheckPlan(begin=begun.append),
        )
    assert not has_failed([Finding(each, subject) for subject, each in found])
    assert targets(place).count("POST /sound/token") == 1
    assert [subject for subject, each in found if each == "connected"] == ["credentials.corp"]
    assert begun[:3] == ["credentials.corp", "upstreams.chat", "upstreams.other"]


async def test_without_a_token_everything_that_needs_it_is_skipped(tmp_path: Path) -> None:
    async with gateway() as place:
        found = await walked(
            settings(
                tmp_path,
                upstream("chat", f"{place.url}/sound", "corp"),
                credential("login", f"{place.url}/refuses"),
                credential("corp", f"{place.url}/sound", 'headers = { x-login = "${credential:login}" }'),
            ),
            CheckPlan(),
        )
    assert [pair for pair in found if pair[1] in {"token_refused", "skipped"}] == [
        ("credentials.login", "token_refused"),
        ("credentials.corp", "skipped"),
        ("upstreams.chat", "skipped"),
        ("service", "skipped"),
    ]
    assert targets(place) == ["POST /refuses/token"]


async def test_a_credential_is_fetched_after_those_that_its_request_needs(tmp_path: Path) -> None:
    async with gateway() as place:
        await walked(
            settings(
                tmp_path,
                upstream("chat", f"{place.url}/sound", "corp"),
                credential("corp", f"{place.url}/slow", 'headers = { x-login = "${credential:login}" }'),
                credential("login", f"{place.url}/sound"),
            ),
            CheckPlan(sends_chats=False),
        )
    tokens = [target for target in targets(place) if target.endswith("/token")]
    assert tokens[0] == "POST /sound/token"
    assert tokens[-1] == "POST /slow/token"


async def test_one_upstream_that_fails_does_not_hide_the_others(tmp_path: Path) -> None:
    async with gateway() as place:
        found = await walked(
            settings(
                tmp_path,
                upstream("chat", f"{place.url}/sound"),
                upstream("other", "http://127.0.0.1:1"),
            ),
            CheckPlan(),
        )
    assert ("upstreams.other", "refused") in found
    assert ("service", "stream_works") in found


async def test_a_plan_without_chats_sends_none(tmp_path: Path) -> None:
    async with gateway() as place:
        await walked(settings(tmp_path, upstream("chat", f"{place.url}/sound")), CheckPlan(sends_chats=False))
    assert targets(place) == ["GET /sound/v1/models"]


async def test_a_fault_of_the_upstream_is_reported_where_it_is(tmp_path: Path) -> None:
    async with gateway() as place:
        found = await walked(
            settings(tmp_path, upstream("chat", f"{place.url}/broken")), CheckPlan(models=("m-chat",))
        )
    assert ("upstreams.chat", "server_failed") in found
    assert not any(subject == "service" and each.startswith("stream") for subject, each in found)


async def test_a_wrong_base_url_is_reported_at_the_upstream_without_a_model_too(tmp_path: Path) -> None:
    async with gateway() as place:
        found = await walked(settings(tmp_path, upstream("chat", f"{place.url}/sound/typo")), CheckPlan())
    assert ("upstreams.chat", "path_unknown") in found
    assert "service" not in {subject for subject, each in found if has_failed([Finding(each, subject)])}


async def test_from_outside_a_fault_ends_the_checks_that_would_only_repeat_it() -> None:
    begun: list[str] = []
    async with gateway() as place:
        section = Upstream.model_validate({"base_url": f"{place.url}/page/v1"})
        plan = CheckPlan(begin=begun.append)
        found = [each.id async for each in walk_address("url", section, "sk-canary", plan)]
    assert begun == ["network", "models"]
    assert found[-1] == "answered_html"


async def test_from_outside_a_model_that_is_not_listed_is_named() -> None:
    async with gateway() as place:
        section = Upstream.model_validate({"base_url": f"{place.url}/sound/v1"})
        plan = CheckPlan(models=("m-chat", "m-absent"))
        found = [each async for each in walk_address("url", section, "sk-canary", plan)]
    assert [each.values["model"] for each in found if each.id == "model_not_listed"] == ["m-absent"]


@pytest.mark.parametrize(
    ("kind", "plan", "model"),
    [
        ("chat", CheckPlan(), "m-listed"),
        ("chat", CheckPlan(models=("m-named",)), "m-named"),
        ("embedding", CheckPlan(models=("m-named", "bge-m3")), "bge-m3"),
        ("embedding", CheckPlan(models=("bge-m3",), embedding_model="e"), "e"),
        ("rerank", CheckPlan(rerank_model="r"), "r"),
        ("rerank", CheckPlan(), None),
    ],
)
def test_a_named_model_is_tested_rather_than_a_listed_one(
    kind: str, plan: CheckPlan, model: str | None
) -> None:
    assert plan.first(kind, ["m-listed"]) == model
