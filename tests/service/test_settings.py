"""The settings: from the environment, all faults at once, and every one of them documented."""

from dataclasses import fields
from pathlib import Path

import pytest

from service.settings import Settings, SettingsError

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"


def test_empty_environment_gives_the_defaults():
    assert Settings.from_environ({}) == Settings()


def test_every_variable_is_read():
    values = {setting.name: setting.default for setting in fields(Settings)}
    for setting in fields(Settings):
        choices = setting.metadata["choices"]
        another = [choice for choice in choices if choice != setting.default]
        other = another[0] if choices else {str: "other", bool: "true"}.get(type(setting.default), "7")
        needed = {"SERVE_ADMIN_PORT": "7"} if setting.name == "admin" else {}
        found = Settings.from_environ({setting.metadata["variable"]: other} | needed)
        assert getattr(found, setting.name) != values[setting.name]


def test_all_faults_are_told_at_once():
    wrong = {"SERVE_PORT": "http", "SERVE_THREADS": "0", "SERVE_POLL_SECONDS": "nan", "SERVE_LOG_LEVEL": "loud"}
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(wrong)
    assert len(caught.value.faults) == 4
    assert "SERVE_PORT: wanted a whole number, 0 to 65535; found 'http'" in caught.value.faults


def test_options_of_the_command_come_before_the_environment():
    settings = Settings.from_environ({"SERVE_PORT": "1", "SERVE_HOST": "a"}, port=2, host=None)
    assert (settings.port, settings.host) == (2, "a")


def test_cache_is_where_the_user_can_write(tmp_path, monkeypatch):
    assert Settings(cache_dir="/somewhere").cache_path({}) == Path("/somewhere")
    home = {"HOME": str(tmp_path)}
    assert Settings().cache_path(home) == tmp_path / ".cache" / "forward-pass"
    assert Settings().cache_path({**home, "XDG_CACHE_HOME": f"{tmp_path}/xdg"}) == tmp_path / "xdg" / "forward-pass"
    assert "forward-pass-" in Settings().cache_path({}).name
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "forward-pass-" in Settings().cache_path(home).name


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda setting: setting.name)
def test_every_setting_is_documented(setting):
    rows = [line for line in DOCUMENT.read_text().splitlines() if f"`{setting.metadata['variable']}`" in line]
    row = next((line for line in rows if line.startswith("|")), "")
    assert setting.metadata["meaning"] in row
    default = {"workers": "one a CPU", "cache_dir": "user's own"}.get(setting.name, str(setting.default))
    assert default in row.replace(",", "") or default in row
