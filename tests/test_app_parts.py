"""The parts of the application: there while it serves, and the same for its views and for its owner."""

from pathlib import Path

from proxy.app import create_app
from proxy.app_parts import EXTENSION, app_parts
from proxy.settings import load_settings
from tests.conftest import RunProxy

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
