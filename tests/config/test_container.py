"""The image, the compose file and the Kubernetes objects: they agree with the program and with each other."""

import base64
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from proxy import __version__
from proxy.app import create_app
from proxy.cli import main
from proxy.cli.server import HARD_STOP_SECONDS
from proxy.settings import load_settings
from tests.cli.test_worker_imports import PLAIN, imported_by_worker, imported_with
from tests.config.examples import Surroundings
from tests.conftest import RunningGateway
from tests.loopback import serve_on_loopback, until
from tests.nginx import caller_through, nginx_before
from tests.redis_server import redis_server

ROOT: Final = Path(__file__).parents[2]
CONTAINER: Final = ROOT / "config/container"
DOCKERFILE: Final = (CONTAINER / "Dockerfile").read_text().replace("\\\n", " ")
IGNORED: Final = (CONTAINER / "Dockerfile.dockerignore").read_text().splitlines()
COMPOSE: Final = (CONTAINER / "compose.yml").read_text()
DEPLOYMENT: Final = (ROOT / "config/kubernetes/deployment.yaml").read_text()
EXACT_TAG: Final = re.compile(r"[a-z-]+:\d+\.\d+\.\d+(?:-[\w.]+)?")
KEY: Final = "sk-compose-5d0f7a21"
ENVIRONMENT: Final = {
    "PROXY_KEY": KEY,
    "PROXY_ENCRYPTION_KEY": base64.b64encode(bytes(range(32))).decode(),
}


def instructions(name: str) -> list[str]:
    """Return the arguments of all instructions of this name."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def drain_seconds() -> float:
    """Return how long the program may take to stop."""
    server = tomllib.loads((ROOT / "hypercorn.toml").read_text())
    return float(server["readiness_delay"] + server["graceful_timeout"] + HARD_STOP_SECONDS)


def test_every_image_has_an_exact_tag() -> None:
    bases = [base.split()[0] for base in instructions("FROM")]
    used = re.findall(r"image: (\S+)", COMPOSE + DEPLOYMENT)
    assert len(bases) == 2
    assert len(used) == 6
    for image in bases + used:
        assert EXACT_TAG.fullmatch(image), image
    ours = {image for image in used if image.startswith("llm-token-proxy")}
    assert ours == {f"llm-token-proxy:{__version__}"}


def test_every_file_that_the_image_copies_exists_and_is_not_ignored() -> None:
    copied = [
        source
        for line in instructions("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    ]
    assert {"proxy", "config", "requirements.lock", "pyproject.toml"} <= {*copied}
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in IGNORED


def test_the_image_has_byte_code_of_all_that_a_worker_imports(tmp_path: Path) -> None:
    """Without it, each start takes 2 s of CPU more, and the worker 11 MB, because the image writes none."""
    (compiled,) = re.findall(r'python -P -c\s+"import ([^"]+)"', DOCKERFILE)
    missing = imported_by_worker(tmp_path, PLAIN) - imported_with(compiled)
    assert [name for name in missing if name.partition(".")[0] not in sys.stdlib_module_names] == []


def test_the_image_runs_our_commands_without_privileges() -> None:
    (user,) = instructions("USER")
    assert user == "10001:10001"
    assert f"runAsUser: {user.split(':')[0]}" in DEPLOYMENT
    (check,) = instructions("HEALTHCHECK")
    assert '["python", "-m", "proxy", "health"]' in check
    (command,) = instructions("CMD")
    with pytest.raises(SystemExit) as ended:
        main([*shlex.split(command.strip("[]").replace(",", " ")), "--help"])
    assert ended.value.code == 0


def test_engines_wait_for_the_whole_drain() -> None:
    (compose,) = re.findall(r"stop_grace_period: (\d+)s", COMPOSE)
    (kubernetes,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", DEPLOYMENT)
    assert min(int(compose), int(kubernetes)) > drain_seconds()


def test_every_file_that_compose_mounts_exists() -> None:
    mounts = re.findall(r"- (\.\S+?):/", COMPOSE)
    assert len(mounts) == 3
    for mount in mounts:
        assert (CONTAINER / mount).is_file(), mount


def test_the_settings_of_the_pods_load(tmp_path: Path) -> None:
    settings = Surroundings(tmp_path).load((ROOT / "config/kubernetes/proxy.toml").read_text())
    assert [key.name for key in settings.access.keys] == ["ragflow"]
    assert "/run/secrets/llm-token-proxy" in DEPLOYMENT


async def test_the_parts_of_compose_stream_an_answer(tmp_path: Path, gateway: RunningGateway) -> None:
    """Check everything without a container engine: the settings, Redis, nginx and the request of `hello`."""
    path = tmp_path / "proxy.toml"
    async with redis_server(tmp_path) as redis:
        text = (CONTAINER / "proxy.toml").read_text()
        text = text.replace("redis://redis:6379/0", redis.url).replace("http://gateway:5003", gateway.url)
        path.write_text(text)
        app = create_app(load_settings(path, ENVIRONMENT))
        async with serve_on_loopback(app) as url, nginx_before(url, tmp_path) as socket:
            await until(app.serving.is_set)
            (question,) = re.findall(r"-d '(.*)'", COMPOSE)
            async with caller_through(socket) as caller:
                await caller.send("POST", "/v1/chat/completions", body=question.encode(), key=KEY)
                answer = await caller.answer()
                body = await caller.body(answer)
    assert answer.status == 200
    assert body.endswith(b"data: [DONE]\n\n")
