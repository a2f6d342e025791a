"""The examples that send no request for a token: keys, files, commands, and tokens that are signed here."""

import json
import math
import time
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest

from proxy.credentials.sources import TokenFetchError
from tests.config.examples import Surroundings, bring, value_of
from tests.pace import PATIENCE

LONG_SECRET = "a-client-secret-of-32-bytes-or-more"


def in_an_hour() -> str:
    return datetime.fromtimestamp(time.time() + 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def script(folder: Path, output: str, condition: str = "true") -> str:
    """Return a program that prints this if the condition holds, and fails otherwise."""
    path = folder / "output"
    path.write_text(output)
    return f"#!/bin/sh\nif {condition}; then cat '{path}'; else exit 3; fi\n"


@pytest.mark.parametrize(
    ("example", "name", "variable"),
    [
        ("static.toml", "key", "LLM_API_KEY"),
        ("spark.toml", "spark", "SPARK_API_PASSWORD"),
        ("hunyuan.toml", "hunyuan", "HUNYUAN_API_KEY"),
    ],
)
async def test_a_permanent_key(example: str, name: str, variable: str, around: Surroundings) -> None:
    brought = await bring(around.example(example), name)

    assert brought.headers == {"authorization": f"Bearer {value_of(variable)}"}
    assert brought.fetched.lifetime == math.inf


async def test_a_mounted_key(around: Surroundings) -> None:
    around.files = {"llm-api-key": "sk-mounted\n"}
    brought = await bring(around.example("static.toml"), "mounted")

    assert brought.headers == {"authorization": "Bearer sk-mounted"}
    assert brought.fetched.lifetime == math.inf
    assert brought.fetched.refresh_in == pytest.approx(51)


async def test_a_projected_token_ends_with_its_own_exp_and_is_read_again_before(around: Surroundings) -> None:
    token = jwt.encode({"exp": int(time.time()) + 3600, "iss": "https://kubernetes.default.svc"}, LONG_SECRET)
    around.files = {"llm-token": token}
    brought = await bring(around.example("file-kubernetes.toml"), "k8s")

    assert brought.headers == {"authorization": f"Bearer {token}"}
    assert brought.fetched.lifetime == pytest.approx(3600, abs=5)
    assert brought.fetched.refresh_in == pytest.approx(51)


async def test_an_agents_sink(around: Surroundings) -> None:
    around.files = {"token": "hvs.sink\n"}
    brought = await bring(around.example("vault-agent.toml"), "vault")

    assert brought.headers == {"x-vault-token": "hvs.sink"}
    assert brought.fetched.lifetime == math.inf


async def test_an_agents_template(around: Surroundings) -> None:
    around.files = {"llm.json": json.dumps({"token": "rendered", "expires": in_an_hour()})}
    brought = await bring(around.example("vault-agent.toml"), "rendered")

    assert brought.headers == {"authorization": "Bearer rendered"}
    assert brought.fetched.lifetime == pytest.approx(3600, abs=5)


async def test_an_exec_credential(around: Surroundings) -> None:
    said = {
        "kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1beta1", "spec": {},
        "status": {"expirationTimestamp": in_an_hour(), "token": "k8s-aws-v1.aHR0"},
    }  # fmt: skip
    wanted = f"eks get-token --cluster-name {value_of('EKS_CLUSTER')} --output json"
    checks = f'[ "$*" = "{wanted}" ] && [ "$AWS_REGION" = eu-west-1 ] && [ -z "$EKS_CLUSTER" ]'
    around.environ = {"AWS_REGION": "eu-west-1"}
    around.programs = {"aws": script(around.folder, json.dumps(said), checks)}
    brought = await bring(around.example("exec-kubernetes.toml"), "cluster")

    assert brought.headers == {"authorization": "Bearer k8s-aws-v1.aHR0"}
    assert brought.fetched.lifetime == pytest.approx(3600, abs=5)


async def test_a_credential_process(around: Surroundings) -> None:
    said = {
        "Version": 1, "AccessKeyId": "AKID", "SecretAccessKey": "none", "SessionToken": "of-the-gateway",
        "Expiration": in_an_hour(),
    }  # fmt: skip
    around.programs = {
        "corp-credentials": script(around.folder, json.dumps(said), '[ "$*" = "--service llm" ]')
    }
    brought = await bring(around.example("exec-aws.toml"), "helper")

    assert brought.headers == {"authorization": "Bearer of-the-gateway"}
    assert brought.fetched.lifetime == pytest.approx(3600, abs=5)


async def test_a_git_helper_gets_the_host_and_does_not_prompt(around: Surroundings) -> None:
    end = int(time.time()) + 3600
    said = f"protocol=https\nhost=llm\nusername=oauth2\npassword=gho_1\npassword_expiry_utc={end}\n"
    asked = f"protocol=https host={value_of('LLM_HOST')}"
    checks = (
        f'[ "$*" = "credential fill" ] && [ "$GIT_TERMINAL_PROMPT" = 0 ] && [ "$(echo $(cat))" = "{asked}" ]'
    )
    around.programs = {"git": script(around.folder, said, checks)}
    brought = await bring(around.example("exec-git.toml"), "git")

    assert brought.headers == {"authorization": "Bearer gho_1"}
    assert brought.fetched.lifetime == pytest.approx(3600, abs=5)


async def test_a_helper_that_fails_gives_no_token(around: Surroundings) -> None:
    with pytest.raises(TokenFetchError, match="the command ended with status 1"):
        await bring(around.example("exec-aws.toml"), "helper")


async def test_zhipus_token_counts_in_milliseconds(around: Surroundings) -> None:
    around.environ = {"ZHIPU_KEY_SECRET": LONG_SECRET}
    brought = await bring(around.example("zhipu.toml"), "zhipu")

    header = jwt.get_unverified_header(brought.token)
    claims = jwt.decode(brought.token, LONG_SECRET, ["HS256"], options={"verify_exp": False})
    assert (header["alg"], header["sign_type"]) == ("HS256", "SIGN")
    assert set(claims) == {"api_key", "exp", "timestamp"}
    assert claims["api_key"] == value_of("ZHIPU_KEY_ID")
    assert claims["exp"] - claims["timestamp"] == 300_000
    assert claims["timestamp"] == pytest.approx(time.time() * 1000, abs=1000 * PATIENCE)
    assert brought.headers == {"authorization": f"Bearer {brought.token}"}
    assert brought.fetched.lifetime == pytest.approx(300, abs=1)
