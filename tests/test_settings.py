"""Settings are strict: what would change nothing, stop a loop, or mean something that nobody meant is refused by name."""

import errno
import math
import os
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from service import config
from service.config import SETTINGS_FILE_VARIABLE, SettingRefused, Settings, load_settings
from service.db.url import database_url, shown, without_secrets
from service.errors import SettingInvalid


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("STILLPOINT_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(config, "SYSTEM_FILE", tmp_path / "etc" / "stillpoint.env")


def in_file(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> Path:
    file = folder / "stillpoint.env"
    file.write_text(text)
    monkeypatch.setenv(SETTINGS_FILE_VARIABLE, str(file))
    return file


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("STILLPOINT_JOB_PER_HOST", "STILLPOINT_JOBS_PER_HOST"),
        ("STILLPOINT_DATABASE_URI", "STILLPOINT_DATABASE_URL"),
        ("STILLPOINT_SETTING_FILE", "STILLPOINT_SETTINGS_FILE"),
        ("STILPOINT_BIND", "STILLPOINT_BIND"),
        ("STILLPOINT_LISTEN", None),
    ],
)
@pytest.mark.parametrize("place", ["file", "environment"])
def test_a_misspelt_name_is_refused_with_the_name_that_was_meant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, meant: str | None, place: str
) -> None:
    if place == "file":
        in_file(monkeypatch, tmp_path, f"{name}=99\n")
    else:
        monkeypatch.setenv(name, "99")
    with pytest.raises(SettingRefused) as refused:
        load_settings()
    assert refused.value.setting.startswith(name)
    assert refused.value.meant == meant
    assert meant is None or meant in refused.value.reason


def test_names_that_are_not_ours_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_file(monkeypatch, tmp_path, "PGSSLROOTCERT=/etc/ssl/ca.pem\nTZ=UTC\nSTILLPOINT_PORT=81\n")
    monkeypatch.setenv("STILLPOINT_TEST_POSTGRES_URL", "postgresql://x")
    assert load_settings().port == 81


@pytest.mark.parametrize("name", sorted(name.upper() for name in Settings.model_fields))
def test_a_blank_value_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Blank, an address would be every address of the machine, and a folder the current one."""
    if f"STILLPOINT_{name}" in config.MAY_BE_BLANK:
        return
    monkeypatch.setenv(f"STILLPOINT_{name}", " ")
    with pytest.raises(SettingRefused) as refused:
        load_settings()
    assert (refused.value.setting, refused.value.reason) == (f"STILLPOINT_{name}", config.BLANK)


@pytest.mark.parametrize("name", ["JOBS_PER_HOST", "port"])
def test_a_name_without_the_prefix_is_refused_in_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    in_file(monkeypatch, tmp_path, f"{name}=7\n")
    with pytest.raises(SettingRefused) as refused:
        load_settings()
    assert refused.value.meant == f"STILLPOINT_{name.upper()}"


def test_a_settings_file_cannot_name_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_file(monkeypatch, tmp_path, "STILLPOINT_SETTINGS_FILE=/etc/other\n")
    with pytest.raises(SettingRefused) as refused:
        load_settings()
    assert (refused.value.setting.split()[0], refused.value.meant) == (SETTINGS_FILE_VARIABLE, None)


# --- what Kubernetes and Docker put there -----------------------------------------------------------

OF_A_SERVICE = {
    "STILLPOINT_SERVICE_HOST": "10.96.0.12",
    "STILLPOINT_SERVICE_PORT": "8080",
    "STILLPOINT_SERVICE_PORT_HTTP": "8080",
    "STILLPOINT_SERVICE_PORT_HTTP_METRICS": "9090",
    "STILLPOINT_PORT": "tcp://10.96.0.12:8080",
    "STILLPOINT_PORT_8080_TCP": "tcp://10.96.0.12:8080",
    "STILLPOINT_PORT_8080_TCP_PROTO": "tcp",
    "STILLPOINT_PORT_8080_TCP_PORT": "8080",
    "STILLPOINT_PORT_8080_TCP_ADDR": "10.96.0.12",
    "STILLPOINT_PORT_53_UDP": "udp://10.96.0.12:53",
    "STILLPOINT_PORT_53_UDP_PROTO": "udp",
}
OF_ANOTHER_SERVICE = {
    name.replace("STILLPOINT_", "STILLPOINT_METRICS_", 1): value.replace("10.96.0.12", "[fd00::1]" if "://" in value else "fd00::1")
    for name, value in OF_A_SERVICE.items()
}
OF_A_LINK = {
    "STILLPOINT_PORT": "tcp://172.17.0.5:5432",
    "STILLPOINT_PORT_5432_TCP": "tcp://172.17.0.5:5432",
    "STILLPOINT_PORT_6000_TCP_START": "tcp://172.17.0.5:6000",
    "STILLPOINT_PORT_6000_TCP_PORT_END": "6009",
    "STILLPOINT_PORT_5432_TCP_ADDR": "172.17.0.5",
    "STILLPOINT_NAME": "/web/stillpoint",
    "STILLPOINT_ENV_BIND": "somewhere",
}


@pytest.mark.parametrize("injected", [OF_A_SERVICE, OF_ANOTHER_SERVICE, OF_A_LINK], ids=["service", "another_service", "link"])
def test_what_kubernetes_and_docker_put_into_the_environment_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, injected: dict[str, str]
) -> None:
    for name, value in injected.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == Settings()


@pytest.mark.parametrize("name", sorted(OF_A_SERVICE | OF_ANOTHER_SERVICE))
def test_each_of_its_names_is_known_by_itself(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, (OF_A_SERVICE | OF_ANOTHER_SERVICE)[name])
    assert load_settings() == Settings()


def test_a_name_that_only_resembles_ours_is_not_taken_for_a_slip_where_kubernetes_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLPOINTS_PORT", "tcp://10.96.0.12:8080")
    assert load_settings().port == 8080


def test_a_setting_that_has_the_name_of_a_link_goes_on_being_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STILLPOINT_PORT", "81")
    monkeypatch.setenv("STILLPOINT_METRICS_PORT", "82")
    assert (load_settings().port, load_settings().metrics_port) == (81, 82)
    in_file(monkeypatch, tmp_path, "STILLPOINT_PORT=83\n")
    monkeypatch.setenv("STILLPOINT_PORT", "tcp://10.96.0.12:8080")
    assert load_settings().port == 83


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STILLPOINT_SERVICE_HOST", "hv1.example.org"),
        ("STILLPOINT_SERVICE_HOST", ""),
        ("STILLPOINT_SERVICE_PORT", "99999"),
        ("STILLPOINT_SERVICE_PORT_HTTP", "http"),
        ("STILLPOINT_PORT_8080_TCP", "8080"),
        ("STILLPOINT_PORT_8080_TCP_PROTO", "8080"),
        ("STILLPOINT_PORT_8080_TCP_ADDR", "tcp"),
        ("STILLPOINT_PORT_8080_TCP_HOST", "10.96.0.12"),
        ("STILLPOINT_PORT_HTTP_TCP", "tcp://10.96.0.12:8080"),
        ("STILLPOINT_PORTS", "tcp://10.96.0.12:8080"),
        ("stillpoint_service_host", "10.96.0.12"),
        ("STILLPOINT_BIND_HOST", "10.96.0.12"),
        ("STILLPOINT_NAME", "hv1"),
        ("STILLPOINT_ENV_BIND", "somewhere"),
    ],
)
def test_what_only_resembles_them_is_refused_as_before(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingRefused) as refused:
        load_settings()
    assert refused.value.setting == name


@pytest.mark.parametrize("value", ["tcp://10.96.0.12", "tcp://hv1:8080", "http://10.96.0.12:8080", "tcp://10.96.0.12:99999", "tcp://"])
def test_a_port_that_is_neither_a_number_nor_a_link_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("STILLPOINT_PORT", value)
    with pytest.raises(ValidationError):
        load_settings()


def test_a_settings_file_has_no_links(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_file(monkeypatch, tmp_path, "STILLPOINT_SERVICE_HOST=10.96.0.12\n")
    with pytest.raises(SettingRefused) as refused:
        load_settings()
    assert refused.value.setting.startswith("STILLPOINT_SERVICE_HOST")


@pytest.mark.parametrize("name", [name.upper() for name in Settings.model_fields])
def test_no_setting_has_a_name_that_kubernetes_would_take(name: str) -> None:
    assert not name.endswith(("_SERVICE_HOST", "_SERVICE_PORT"))


# --- values ---------------------------------------------------------------------------------------

NUMBERS = sorted(name for name, field in Settings.model_fields.items() if field.annotation in (int, float, int | None))


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e12", "1e300", "99999999999999999999", "-1"])
@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_is_finite_and_has_bounds(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"STILLPOINT_{name.upper()}", value)
    with pytest.raises(ValidationError) as refused:
        load_settings()
    assert [error["loc"] for error in refused.value.errors()] == [(name,)]


def test_the_numbers_are_all_there() -> None:
    assert {"port", "metrics_port", "poll_seconds", "lease_seconds", "max_body_bytes"} <= set(NUMBERS)
    assert all(math.isfinite(getattr(Settings(), name) or 0) for name in NUMBERS)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "fe80::1%eth0", "localhost", "hv1.example.org"])
def test_an_address_that_is_one_is_taken(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("STILLPOINT_BIND", address)
    assert load_settings().bind == address


@pytest.mark.parametrize("address", ["0", "0x0", "*", "127.1", "[::1]", "127.0.0.1:8080", "<broadcast>", "a b"])
def test_what_only_looks_like_an_address_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("STILLPOINT_BIND", address)
    with pytest.raises(ValidationError) as refused:
        load_settings()
    assert [(error["loc"], error["type"]) for error in refused.value.errors()] == [(("bind",), "setting_invalid")]


@pytest.mark.parametrize("host_id", ["../hv1", "a/b", "hv\n1", "x" * 65])
def test_a_host_id_that_cannot_be_a_part_of_a_file_name_is_refused(monkeypatch: pytest.MonkeyPatch, host_id: str) -> None:
    monkeypatch.setenv("STILLPOINT_HOST_ID", host_id)
    with pytest.raises(ValidationError):
        load_settings()


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nonexistent", "", " "])
def test_a_settings_file_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv(SETTINGS_FILE_VARIABLE, path)
    with pytest.raises(SettingRefused) as refused:
        load_settings()
    assert refused.value.setting == SETTINGS_FILE_VARIABLE


def test_so_is_one_that_is_a_folder_or_not_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(SETTINGS_FILE_VARIABLE, str(tmp_path))
    with pytest.raises(SettingRefused, match=os.strerror(errno.EISDIR)):
        load_settings()
    in_file(monkeypatch, tmp_path, "").write_bytes(b"STILLPOINT_HOST_ID=\xff\n")
    with pytest.raises(SettingRefused, match="UTF-8"):
        load_settings()


@pytest.mark.parametrize("line", ["export STILLPOINT_PORT=81", "STILLPOINT_PORT 81", "STILLPOINT_PORT: 81", 'STILLPOINT_HOST_ID="hv1'])
def test_a_line_that_systemd_would_pass_over_is_refused_with_its_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str) -> None:
    in_file(monkeypatch, tmp_path, f"# settings\n\n{line}\n")
    with pytest.raises(SettingRefused, match="line 3 "):
        load_settings()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("p$HOME#x;y@z", "p$HOME#x;y@z"),
        ("'p a\"s'", 'p a"s'),
        ('"p \\"a\\" \\$x"', 'p "a" $x'),
        ("a\\\\b", "a\\b"),
        ("  spaces around  ", "spaces around"),
        ("two \\\nlines", "two lines"),
        ("ümläut", "ümläut"),
    ],
)
def test_values_are_read_as_systemd_reads_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str, meant: str) -> None:
    in_file(monkeypatch, tmp_path, f"; a comment\nSTILLPOINT_PORT=81\nSTILLPOINT_DATABASE_PASSWORD={written}\n#STILLPOINT_PORT=82")
    settings = load_settings()
    assert settings.database_password is not None
    assert (settings.port, settings.database_password.get_secret_value()) == (81, meant)


def test_the_file_of_the_units_is_read_where_no_other_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config.SYSTEM_FILE.parent.mkdir()
    config.SYSTEM_FILE.write_text("STILLPOINT_PORT=81\nSTILLPOINT_HOST_ID=from-file\n")
    monkeypatch.setenv("STILLPOINT_HOST_ID", "from-environment")
    assert (load_settings().port, load_settings().host_id) == (81, "from-environment")
    in_file(monkeypatch, tmp_path, "STILLPOINT_BIND=::1\n")
    assert (load_settings().port, load_settings().bind) == (8080, "::1")


def test_a_file_of_the_units_that_cannot_be_read_is_told_and_never_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    config.SYSTEM_FILE.mkdir(parents=True)
    with pytest.raises(SettingRefused, match=f"{SETTINGS_FILE_VARIABLE}=/dev/null"):
        load_settings()
    monkeypatch.setenv(SETTINGS_FILE_VARIABLE, "/dev/null")
    assert load_settings().port == 8080


def test_systemd_has_read_it_for_its_units(monkeypatch: pytest.MonkeyPatch) -> None:
    config.SYSTEM_FILE.mkdir(parents=True)
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
    assert load_settings().port == 8080


# --- the database's URL ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:SECRET@h/d",
        "postgresql+psycopg://u:a@SECRET@h/d",
        "postgresql+psycopg://u:a/@#SECRET@h/d",
        "postgresql+psycopg://u:SECRET@h:port/d",
        "postgresql+psycopg://u@h/d?password=SECRET",
        "postgresql+psycopg://u@h/d?sslmode=require&PASSWORD=SECRET",
        "postgresql+psycopg://u@h/d?p%61ssword=SECRET",
        "postgresql+psycopg://u@h/d?pasword=SECRET",
        "postgresql+psycopg://u@h/d?sslpassword=SECRET&passfile=/SECRET",
        "postgresql:u:SECRET@h",
        "SECRET",
    ],
)
def test_no_password_is_shown_wherever_it_stands(url: str) -> None:
    assert "SECRET" not in shown(url)
    try:
        assert "SECRET" not in shown(database_url(Settings(database_url=url)))
    except SettingInvalid as refused:
        assert "SECRET" not in refused.detail


def test_a_url_without_a_secret_is_shown_whole() -> None:
    assert shown("postgresql+psycopg://u@h:5433/d?sslmode=require") == "postgresql+psycopg://u@h:5433/d?sslmode=require"
    assert without_secrets("qemu+ssh://root:SECRET@hv1/system?keyfile=k") == "qemu+ssh://root:***@hv1/system?keyfile=***"


@pytest.mark.parametrize("password", ["p/@#w", "%41", "a b:c?d&e=f", "'\"\\"])
def test_a_password_of_its_own_needs_no_encoding(password: str) -> None:
    url = database_url(Settings(database_url="postgresql+psycopg://u@h/d", database_password=password))
    assert (url.password, url.host, url.database) == (password, "h", "d")


def test_compose_gives_the_password_as_it_is_and_never_in_the_url() -> None:
    compose = yaml.safe_load((Path(__file__).parents[1] / "docker-compose.yml").read_text())
    for service in ("migrate", "api", "worker"):
        environment = compose["services"][service]["environment"]
        assert "POSTGRES_PASSWORD" not in environment["STILLPOINT_DATABASE_URL"]
        assert environment["STILLPOINT_DATABASE_PASSWORD"] == compose["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"]


@pytest.mark.parametrize(
    ("url", "setting"),
    [
        ("postgresql+psycopg://u:x@h/d", "STILLPOINT_DATABASE_PASSWORD"),
        ("postgresql+psycopg://u@h/d?password=x", "STILLPOINT_DATABASE_PASSWORD"),
        ("sqlite:////tmp/x.db", "STILLPOINT_DATABASE_PASSWORD"),
        ("sqlite://", "STILLPOINT_DATABASE_URL"),
        ("sqlite:///:memory:", "STILLPOINT_DATABASE_URL"),
        ("mysql://h/d", "STILLPOINT_DATABASE_URL"),
        ("postgresql+asyncpg://h/d", "STILLPOINT_DATABASE_URL"),
        ("postgresql+psycopg://u:p@ss@h/d", "STILLPOINT_DATABASE_URL"),
        ("postgresql+psycopg://u@h:port/d", "STILLPOINT_DATABASE_URL"),
        ("http://h/d", "STILLPOINT_DATABASE_URL"),
    ],
)
def test_a_url_that_cannot_work_is_refused_before_anything_is_asked(url: str, setting: str) -> None:
    with pytest.raises(SettingInvalid) as refused:
        database_url(Settings(database_url=url, database_password="one"))
    assert refused.value.facts["setting"] == setting


def test_a_setting_of_an_earlier_version_is_refused_with_what_became_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "stillpoint.env"
    file.write_text("STILLPOINT_JOBS_PER_STORAGE=8\n")
    monkeypatch.setenv(SETTINGS_FILE_VARIABLE, str(file))
    with pytest.raises(SettingRefused) as refused:
        load_settings()
    assert refused.value.setting == f"STILLPOINT_JOBS_PER_STORAGE in {file}"
    assert refused.value.reason == config.REMOVED["STILLPOINT_JOBS_PER_STORAGE"]
