"""The parts of the application: they exist while it serves, and its views and its owner get the same ones."""

import importlib
import inspect
import re
from pathlib import Path

from proxy.app import create_app
from proxy.app_parts import EXTENSION, app_parts
from proxy.settings import load_settings
from tests.conftest import RunProxy

ROOT = Path(__file__).parents[1]
NOWHERE = "http://127.0.0.1:1"


async def test_a_view_gets_the_parts_of_its_own_application(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE) as proxy, proxy.app.app_context():
        parts = app_parts()
        assert parts is app_parts(proxy.app)
        assert parts.snapshots.current is proxy.services
        assert parts.worker_reports is None  # one worker has nobody to ask


def test_an_application_that_does_not_serve_has_no_parts(tmp_path: Path) -> None:
    path = tmp_path / "proxy.toml"
    path.write_text(
        f'[access]\nmode = "open"\n[upstreams.chat]\nbase_url = "{NOWHERE}"\n[routes]\ndefault = "chat"\n'
    )
    assert EXTENSION not in create_app(load_settings(path, {})).extensions


def drawn() -> list[tuple[int, str, str]]:
    """The lines of the drawing in ARCHITECTURE.md: the depth, the function or class, and what that opens."""
    section = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("\n## Who owns what\n")[1]
    drawing = section.split("```")[1].strip("\n")
    lines = [re.fullmatch(r"([│├└ ]*)([\w.]+) +(\w+): .*", line) for line in drawing.splitlines()]
    return [(len(line[1]) // 2, line[2], line[3]) for line in lines if line is not None]


def test_the_drawing_of_who_owns_what_is_true() -> None:
    parents: list[str] = ["app"]
    for depth, path, opened in drawn():
        module, _, name = path.rpartition(".")
        opener = getattr(importlib.import_module(f"proxy.{module}"), name)
        assert opened in {name, *re.findall(r"\w+", str(inspect.signature(opener).return_annotation))}
        parent = importlib.import_module(f"proxy.{parents[depth]}")
        assert f"{name}(" in inspect.getsource(parent)
        parents[depth + 1 :] = [module]
    assert len(drawn()) == 6
