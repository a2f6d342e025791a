"""Every block in the documents has a language, and a test runs, loads or parses all blocks of a language."""

import asyncio
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest
import yaml  # type: ignore[import-untyped]

from proxy.app import create_app
from proxy.settings import load_settings
from tests.conftest import require
from tests.documents import DOCUMENTS, FENCE, ROOT, fences, in_both_languages
from tests.loopback import serve_on_loopback
from tests.nginx import CONF, find_nginx
from tests.signing_keys import certificate_pem, pem

TESTED_IN: Final = {
    "console": "tests/config/test_guide.py, tests/test_docs_troubleshooting.py",
    "html": __name__,
    "ini": __name__,
    "nginx": __name__,
    "python": __name__,
    "sh": "tests/test_docs_commands.py",
    "toml": "tests/test_docs_configuration.py",
    "yaml": __name__,
}
SESSIONS: Final = {"docs/token-endpoint": 2, "docs/troubleshooting": 1}
"""The number of terminal sessions on each page; the tests of the page run them."""
DRAWINGS: Final = {"ARCHITECTURE.md": 3}
"""Blocks without a language are text drawings."""
UNITS: Final = ROOT / "config/systemd"
KUBERNETES: Final = ROOT / "config/kubernetes"
OUR_NGINX_FILES: Final = "/path/to/config"


def pages_with(language: str) -> list[str]:
    """Return the documents with a block in this language."""
    return [name for name, text in DOCUMENTS.items() if fences(text, language)]


def test_every_block_has_a_language_that_is_tested() -> None:
    found = {language for text in DOCUMENTS.values() for language, _ in FENCE.findall(text)}
    drawings = {name: len(fences(text, "")) for name, text in DOCUMENTS.items() if fences(text, "")}

    assert found - {""} == {*TESTED_IN}
    assert drawings == DRAWINGS


def test_every_session_belongs_to_a_page_whose_tests_play_it() -> None:
    sessions = {name.split(".")[0]: len(fences(DOCUMENTS[name], "console")) for name in pages_with("console")}

    assert sessions == SESSIONS


@pytest.mark.parametrize("name", pages_with("nginx"))
def test_nginx_accepts_every_block(name: str, tmp_path: Path) -> None:
    program = find_nginx()
    require("nginx", found=program is not None)
    (tmp_path / "certificate.pem").write_text(certificate_pem("rsa"))
    (tmp_path / "key.pem").write_text(pem("rsa"))
    for block in fences(DOCUMENTS[name], "nginx"):
        servers = block if block.startswith("server") else f"server {{\nlisten 80;\n{block}}}"
        servers = re.sub(r"listen \d+", f"listen unix:{tmp_path}/nginx.sock", servers)
        servers = servers.replace(OUR_NGINX_FILES, f"{ROOT}/config")
        servers = re.sub(r"/path/to/[\w.-]+-key\.pem", f"{tmp_path}/key.pem", servers)
        servers = re.sub(r"/path/to/[\w.-]+\.pem", f"{tmp_path}/certificate.pem", servers)
        (tmp_path / "nginx.conf").write_text(CONF.format(home=tmp_path, user="", servers=servers))
        command = [
            str(program),
            "-t",
            "-p",
            str(tmp_path),
            "-e",
            "stderr",
            "-c",
            str(tmp_path / "nginx.conf"),
        ]
        tested = subprocess.run(command, capture_output=True, text=True, check=False)

        assert tested.returncode == 0, tested.stderr


@pytest.mark.parametrize("name", pages_with("ini"))
def test_systemd_accepts_every_block_as_an_edit_of_its_unit(name: str, tmp_path: Path) -> None:
    require("systemd-analyze", found=shutil.which("systemd-analyze") is not None)
    service = (UNITS / "llm-token-proxy.service").read_text()
    service = re.sub(r"^(Exec\w+=)\S+", r"\1/bin/true", service, flags=re.MULTILINE)
    (tmp_path / "llm-token-proxy.service").write_text(service)
    unit = shutil.copy(UNITS / "llm-token-proxy.socket", tmp_path)
    edits = tmp_path / "llm-token-proxy.socket.d"
    edits.mkdir()
    for block in fences(DOCUMENTS[name], "ini"):
        assert re.findall(r"^\[(\w+)\]$", block, re.MULTILINE) == ["Socket"]
        (edits / "override.conf").write_text(block)
        command = ["systemd-analyze", "verify", "--man=no", str(unit)]
        verified = subprocess.run(command, capture_output=True, text=True, check=False)

        of_ours = [line for line in verified.stderr.splitlines() if "llm-token-proxy" in line]
        assert (verified.returncode, of_ours) == (0, [])


@pytest.mark.parametrize("name", pages_with("yaml"))
def test_every_overlay_changes_what_its_base_has(name: str) -> None:
    base = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    deployment = yaml.safe_load((KUBERNETES / "deployment.yaml").read_text())
    generated = {one["name"]: one["files"] for one in base["configMapGenerator"]}
    containers = deployment["spec"]["template"]["spec"]["containers"]
    for block in fences(DOCUMENTS[name], "yaml"):
        overlay = yaml.safe_load(block)
        if overlay.get("kind") == "HorizontalPodAutoscaler":
            continue  # see the next test

        assert {*overlay} == {"resources", "configMapGenerator", "images"}
        for one in overlay["configMapGenerator"]:
            assert generated[one["name"]] == one["files"]
        for image in overlay["images"]:
            assert image["name"] in {container["image"].partition(":")[0] for container in containers}


@pytest.mark.parametrize("name", in_both_languages("docs/performance/scale"))
def test_the_autoscaler_scales_the_deployment_by_a_metric_of_the_service(name: str) -> None:
    deployment = yaml.safe_load((KUBERNETES / "deployment.yaml").read_text())
    (block,) = fences(DOCUMENTS[name], "yaml")
    autoscaler = yaml.safe_load(block)["spec"]

    target = {key: autoscaler["scaleTargetRef"][key] for key in ("apiVersion", "kind")}
    assert target == {key: deployment[key] for key in target}
    assert autoscaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (metric,) = autoscaler["metrics"]
    assert f"`{metric['pods']['metric']['name']}`" in DOCUMENTS["docs/metrics.md"]


@pytest.mark.parametrize("name", pages_with("python"))
def test_every_program_compiles(name: str) -> None:
    for block in fences(DOCUMENTS[name], "python"):
        compile(block, name, "exec")


@pytest.mark.parametrize("name", pages_with("html"))
async def test_every_script_of_a_page_is_served(name: str) -> None:
    scripts: list[str] = []

    class Scripts(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            scripts.extend(value for key, value in attrs if (tag, key) == ("script", "src") and value)

    for block in fences(DOCUMENTS[name], "html"):
        Scripts().feed(block)
    app = create_app(load_settings(ROOT / "config/proxy.toml", {}))
    async with serve_on_loopback(app) as url:
        for script in scripts:
            asked = await asyncio.create_subprocess_exec("curl", "-fsSo", "/dev/null", url + script)
            assert await asked.wait() == 0, script
    assert scripts
