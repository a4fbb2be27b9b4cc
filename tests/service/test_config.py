"""Settings come from the environment, all errors are reported at once, and every setting is documented."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from service.config import Settings, SettingsError, available_cpus, unknown_variables
from service.server.event_loop import LARGE_READ_BYTES
from service.server.request_reader import MAX_HEAD_BYTES, MAX_TRAILER_BYTES

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"


def test_empty_environment_gives_the_defaults():
    assert Settings.from_environ({}) == Settings()


def test_every_variable_is_read():
    values = {setting.name: setting.default for setting in fields(Settings)}
    for setting in fields(Settings):
        choices = setting.metadata["choices"]
        another = [choice for choice in choices if choice != setting.default]
        text = {"forwarded_allow_ips": "10.0.0.1", "cors_origins": "*", "trusted_hosts": "here"}.get(
            setting.name, "/other"
        )
        other = another[0] if choices else {str: text, bool: str(not setting.default)}.get(type(setting.default), "7")
        needed = {"admin": {"SERVE_ADMIN_PORT": "7"}, "max_input_bytes": {"SERVE_MAX_BODY_BYTES": "7"}}
        admin = {"SERVE_ADMIN": "1", "SERVE_ADMIN_PORT": "8", "SERVE_GRPC_PORT": "9"}
        needed["grpc_admin_port"] = admin
        found = Settings.from_environ({setting.metadata["variable"]: other} | needed.get(setting.name, {}))
        assert getattr(found, setting.name) != values[setting.name]


def test_all_faults_are_reported_at_once():
    wrong = {"SERVE_PORT": "http", "SERVE_THREADS": "0", "SERVE_POLL_SECONDS": "nan", "SERVE_ADMIN": "1"}
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(wrong)
    assert len(caught.value.faults) == 4
    assert "SERVE_PORT: expected a whole number, 0 to 65535; found 'http'" in caught.value.faults
    assert "SERVE_ADMIN: expected an admin listener, found none; set SERVE_ADMIN_PORT" in caught.value.faults


def test_a_port_of_grpc_is_no_other_port_and_its_repository_requires_admin():
    for wrong, expected in (
        ({"SERVE_GRPC_PORT": "8000"}, "SERVE_GRPC_PORT: expected another port than SERVE_PORT, found 8000 for both"),
        ({"SERVE_GRPC_PORT": "7", "SERVE_GRPC_ADMIN_PORT": "8"}, "expected SERVE_ADMIN=true, found false"),
        (
            {"SERVE_ADMIN": "1", "SERVE_ADMIN_PORT": "8", "SERVE_GRPC_ADMIN_PORT": "8"},
            "SERVE_GRPC_ADMIN_PORT: expected SERVE_GRPC_PORT, found none",
        ),
    ):
        with pytest.raises(SettingsError, match=re.escape(expected)):
            Settings.from_environ({"SERVE_PORT": "8000", **wrong})


def test_an_invalid_admin_port_is_not_reported_as_missing():
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({"SERVE_ADMIN": "1", "SERVE_ADMIN_PORT": "x"})
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda setting: setting.name)
@pytest.mark.parametrize("empty", ["", "  "])
def test_empty_variable_means_unset(setting, empty):
    """Compose files and charts pass variables that are not set as empty ones."""
    assert Settings.from_environ({setting.metadata["variable"]: empty}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SERVE_ADMIN", "ture", "expected true or false; found 'ture'"),
        ("SERVE_FORWARDED_ALLOW_IPS", "::1,proxy", "expected comma-separated IP addresses or networks; found 'proxy'"),
        (
            "SERVE_FORWARDED_ALLOW_IPS",
            "10.0.0.1/8",
            "expected comma-separated IP addresses or networks; found '10.0.0.1/8'",
        ),
        ("AIP_HEALTH_ROUTE", "health", "expected a URL path such as /route; found 'health'"),
        ("AIP_PREDICT_ROUTE", "/<model>", "expected a URL path such as /route; found '/<model>'"),
    ],
)
def test_invalid_value_is_reported_with_its_variable(variable, value, message):
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({variable: value})
    assert caught.value.faults == [f"{variable}: {message}"]


@pytest.mark.parametrize(("text", "on"), [("true", True), ("YES", True), ("1", True), ("off", False), ("0", False)])
def test_boolean_setting_accepts_the_usual_words(text, on):
    assert Settings.from_environ({"SERVE_ADMIN": text, "SERVE_ADMIN_PORT": "1"}).admin is on


@pytest.mark.parametrize("proxies", ["*", "10.0.0.0/8, ::1", "127.0.0.1,"])
def test_proxies_are_ip_addresses_and_networks(proxies):
    assert Settings.from_environ({"SERVE_FORWARDED_ALLOW_IPS": proxies}).forwarded_allow_ips == proxies


def test_the_input_of_a_worker_holds_at_least_one_largest_body():
    assert Settings().input_limit == 32 * 2**20
    assert Settings(max_body_bytes=2**26).input_limit == 2**28
    assert Settings(max_body_bytes=1000).input_limit == 32 * 2**20
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({"SERVE_MAX_BODY_BYTES": "8000", "SERVE_MAX_INPUT_BYTES": "7000"})
    assert caught.value.faults == ["SERVE_MAX_INPUT_BYTES: expected at least SERVE_MAX_BODY_BYTES (8000), found 7000"]


@pytest.mark.parametrize("options", [{}, {"port": 8001}])
def test_admin_port_must_differ_from_the_port(options):
    """Requests are distinguished by their port: with one port, anyone could use the admin endpoints."""
    environ = {"SERVE_ADMIN_PORT": "8001", "SERVE_ADMIN_HOST": "127.0.0.2"}
    environ |= {} if options else {"SERVE_PORT": "8001"}
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(environ, **options)
    assert caught.value.faults == ["SERVE_ADMIN_PORT: expected another port than SERVE_PORT, found 8001 for both"]


def test_unknown_variable_is_reported_with_the_closest_setting():
    environ = {"SERVE_KEY_FILE": "keys", "SERVE_WORKERS": "1", "SERVED": "x", "SERVE_X": ""}
    assert unknown_variables(environ) == [
        "unknown setting SERVE_KEY_FILE is ignored; did you mean SERVE_KEYS_FILE?",
        "unknown setting SERVE_X is ignored",
    ]


def test_command_line_options_override_the_environment():
    settings = Settings.from_environ({"SERVE_PORT": "1", "SERVE_HOST": "a"}, port=2, host=None)
    assert (settings.port, settings.host) == (2, "a")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_number_of_workers_follows_the_containers_cpu_limit(tmp_path, monkeypatch, files, found):
    """One worker per CPU of the machine would waste memory and compete for the limited CPU time."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert available_cpus(tmp_path) == found


def test_cache_is_in_a_writable_directory_of_the_user(tmp_path, monkeypatch):
    assert Settings(cache_dir="/somewhere").cache_path({}) == Path("/somewhere")
    home = {"HOME": str(tmp_path)}
    assert Settings().cache_path(home) == tmp_path / ".cache" / "forward-pass"
    assert Settings().cache_path({**home, "XDG_CACHE_HOME": f"{tmp_path}/xdg"}) == tmp_path / "xdg" / "forward-pass"
    assert "forward-pass-" in Settings().cache_path({}).name
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "forward-pass-" in Settings().cache_path(home).name


def test_container_without_a_writable_directory_is_reported(monkeypatch):
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found in ['/tmp', '/var/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", none)
    with pytest.raises(SettingsError, match="SERVE_CACHE_DIR: expected a writable directory, found none"):
        Settings().cache_path({})


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda setting: setting.name)
def test_every_setting_is_documented(setting):
    rows = [line for line in DOCUMENT.read_text().splitlines() if f"`{setting.metadata['variable']}`" in line]
    row = next((line for line in rows if line.startswith("|")), "")
    assert setting.metadata["description"] in row
    default = {"workers": "one per CPU", "cache_dir": "user's cache"}.get(setting.name, str(setting.default))
    assert default in row.replace(",", "") or default in row


def test_the_largest_body_with_its_head_fits_into_the_limit_of_waiting_input() -> None:
    """With equal limits, a body of a byte more got 503, which invites the client to send it again."""
    limit = Settings(max_body_bytes=1000, max_input_bytes=1000).input_limit
    assert limit == 1000 + 2**20 > 1000 + LARGE_READ_BYTES + 2 * MAX_HEAD_BYTES + MAX_TRAILER_BYTES
