"""Which changes of the settings need a restart."""

from pathlib import Path

import pytest

from proxy.errors import SettingsError
from proxy.settings import Settings, load_settings
from proxy.settings.restart import changes_that_need_restart, merge_settings
from tests.conftest import KEY, RECIPE, SETTINGS, STATIC

CHANGED = '[logs]\nlevel = "error"\n[cors]\norigins = ["*"]\n'
REDIS = f'[shared]\nredis_url = "unix:///nowhere"\nencryption_key = "{"ab" * 32}"\n'


def settings(folder: Path, key: str = KEY, more: str = "", credential: str = STATIC) -> Settings:
    """Return settings with some sections more."""
    text = SETTINGS.format(
        key=key, upstream="http://127.0.0.1:9", credential=credential, options="", more=more
    )
    (folder / "proxy.toml").write_text(text)
    return load_settings(folder / "proxy.toml", {})


def test_sections_that_need_a_restart_stay_and_the_others_change(tmp_path: Path) -> None:
    running = settings(tmp_path)
    new = settings(tmp_path, "sk-new-key-91", CHANGED)
    merged = merge_settings(running, new)
    assert [*changes_that_need_restart(running, new)] == ["cors", "logs"]
    assert [*changes_that_need_restart(running, merged)] == []
    assert (merged.logs, merged.cors) == (running.logs, None)
    assert merged.access == new.access


def test_keys_that_need_a_restart_stay_and_the_rest_of_their_section_changes(tmp_path: Path) -> None:
    running = settings(tmp_path)
    new = settings(tmp_path, more="[limits]\nmax_connections = 7\nmax_event_bytes = 8\n")
    merged = merge_settings(running, new)
    assert [*changes_that_need_restart(running, new)] == ["limits.max_connections"]
    assert [*changes_that_need_restart(running, merged)] == []
    assert merged.limits.max_connections == running.limits.max_connections
    assert merged.limits.max_event_bytes == 8


def test_a_combination_that_is_not_valid_is_rejected(tmp_path: Path) -> None:
    running = settings(tmp_path)
    new = settings(
        tmp_path, more=REDIS, credential=f'{RECIPE.format(issuer="http://127.0.0.1:9")}sharing = "redis"\n'
    )
    with pytest.raises(SettingsError, match="with a restart only"):
        merge_settings(running, new)
