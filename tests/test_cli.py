"""The command line as a user meets it: what it prints, where, and with which exit code."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from service.db.engine import Database, open_engine
from service.db.tables import Job
from service.errors import HostNotSilent, HostUnknown, TokenNotFound
from tests.api.world import add_host, add_job
from tests.databases import migrate, sqlite_url
from tests.scenes.aged import add_ended, count_of
from tests.scenes.orders import a_snapshot
from tests.scenes.queue import add


class Command:
    """`stillpoint …` in a process of its own, with a state folder of its own."""

    def __init__(self, state_dir: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STILLPOINT_")}
        self.state_dir = state_dir
        self.environment = {
            **kept,
            "STILLPOINT_STATE_DIR": str(state_dir),
            # The settings of a Stillpoint that is installed on this machine are not for its tests.
            "STILLPOINT_SETTINGS_FILE": "/dev/null",
            "STILLPOINT_LIBVIRT_URI": "test:///default",
            "STILLPOINT_HOST_ID": "hv1",
            "STILLPOINT_PORT": "0",
        }

    def __call__(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._line(arguments), env=self._with(settings), capture_output=True, text=True, timeout=60, check=False)

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        """SIGINT ends it, also where these tests run in the background of a script, which ignores that signal: children inherit this."""
        line = ["env", "--default-signal=INT", *self._line(arguments)]
        return subprocess.Popen(line, env=self._with(settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def _line(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "service.cli", *arguments]

    def _with(self, settings: dict[str, str]) -> dict[str, str]:
        return self.environment | {f"STILLPOINT_{name.upper()}": value for name, value in settings.items()}


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever a test finds: a process that goes on would be waited for without an end."""
    try:
        yield
    finally:
        process.kill()


@pytest.fixture
def stillpoint(tmp_path: Path) -> Command:
    return Command(tmp_path / "state")


@pytest.fixture
def migrated(stillpoint: Command) -> Command:
    stillpoint.state_dir.mkdir()
    migrate(sqlite_url(stillpoint.state_dir / "stillpoint.db"))
    return stillpoint


@pytest.mark.parametrize(
    "command", [[], ["all"], ["serve"], ["worker"], ["migrate"], ["doctor"], ["thaw"], ["events"], ["token"], ["token", "create"]]
)
def test_every_command_explains_itself(stillpoint: Command, command: list[str]) -> None:
    result = stillpoint(*command, "--help")
    assert result.returncode == 0
    assert "Usage:" in result.stdout


def test_all_tells_where_it_listens_and_where_the_first_token_is_and_stops_when_asked(stillpoint: Command) -> None:
    running = stillpoint.start("all")
    assert running.stdout is not None
    line = running.stdout.readline()
    token_file = stillpoint.state_dir / "admin.token"
    url = line.split(" listens on ")[1].split(" ")[0]
    token = token_file.read_text().strip()
    answer = httpx2.get(f"{url}/api/v1/hosts", headers={"Authorization": f"Bearer {token}"})
    ready = httpx2.get(f"{url}/readyz")
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=30)

    assert str(token_file) in line
    assert token not in line + out + err
    assert (answer.status_code, ready.status_code) == (200, 200)
    assert (running.returncode, "Traceback" in err) == (0, False)


def test_serve_alone_answers_and_stops_when_interrupted(migrated: Command) -> None:
    running = migrated.start("serve")
    assert running.stdout is not None
    url = running.stdout.readline().split(" listens on ")[1].split(" ")[0]
    health = httpx2.get(f"{url}/healthz")
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)

    assert (health.status_code, running.returncode) == (200, 0)


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_only_all_and_migrate_make_a_database(stillpoint: Command, command: str) -> None:
    result = stillpoint(command)
    assert result.returncode == 1
    assert "Run `stillpoint migrate`." in result.stderr
    assert "Traceback" not in result.stderr
    assert not (stillpoint.state_dir / "admin.token").exists()


def test_a_port_that_is_taken_is_said_plainly(migrated: Command) -> None:
    running = migrated.start("serve")
    assert running.stdout is not None
    port = running.stdout.readline().split("http://127.0.0.1:")[1].split(" ")[0]
    result = migrated("serve", port=port)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=30)

    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in result.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": "http"}, "STILLPOINT_PORT: "),
        ({"database_url": "nonsense"}, "STILLPOINT_DATABASE_URL: "),
        ({"database_url": "mysql://x/y"}, "STILLPOINT_DATABASE_URL: "),
        ({"database_url": "postgresql+psycopg://u:secret@127.0.0.1:1/x"}, "The database did not answer"),
    ],
)
def test_a_setting_that_cannot_be_used_is_a_message_and_a_remedy(stillpoint: Command, settings: dict[str, str], message: str) -> None:
    result = stillpoint("migrate", **settings)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stderr + result.stdout


def test_a_token_is_printed_once_and_alone_on_standard_output(migrated: Command) -> None:
    created = migrated("token", "create", "laptop", "--expires-days", "30")
    secret = created.stdout.strip()
    listed = migrated("token", "list").stdout
    token_id = listed.split()[0]
    revoked = migrated("token", "revoke", token_id)
    listed_after = migrated("token", "list").stdout

    assert secret.startswith("sp_")
    assert secret not in created.stderr + listed
    assert secret[:10] in listed
    assert f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}" in listed
    assert "laptop" in listed
    assert revoked.returncode == 0
    assert "revoked" in listed_after


def test_revoking_an_unknown_token_is_an_error(migrated: Command) -> None:
    result = migrated("token", "revoke", "nothing")
    error = TokenNotFound(token_id="nothing")
    assert (result.returncode, result.stderr) == (1, f"{error.title}: {error.detail}\n{error.remedy}\n")


def test_hosts_are_listed_and_one_that_is_silent_is_forgotten(migrated: Command) -> None:
    database = Database(open_engine(sqlite_url(migrated.state_dir / "stillpoint.db")))
    with database.write() as session:
        add_host(session, "alive")
        add_host(session, "dead", seen_ago=timedelta(minutes=5))
        job_id = add_job(session, state="interrupted", host_id="dead")
    database.dispose()

    listed = migrated("host", "list").stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [["alive", "alive,"], ["dead", "silent,"]]
    assert "1 jobs running" in listed[1]

    refused = migrated("host", "forget", "alive")
    assert (refused.returncode, HostNotSilent.title in refused.stderr) == (1, True)
    forgotten = migrated("host", "forget", "dead")
    assert (forgotten.returncode, job_id in forgotten.stdout) == (0, True)
    assert [line.split()[0] for line in migrated("host", "list").stdout.splitlines()] == ["alive"]
    assert HostUnknown(host="dead").detail in migrated("host", "forget", "dead").stderr


def test_events_are_shown_from_any_of_them_on_and_followed(migrated: Command) -> None:
    database = Database(open_engine(sqlite_url(migrated.state_dir / "stillpoint.db")))
    jobs = [add(database, a_snapshot(name)) for name in ("a", "b")]
    shown = [json.loads(line) for line in migrated("events", "--json").stdout.splitlines()]
    assert [(event["job_id"], event["moved_from"], event["moved_to"]) for event in shown] == [(job, None, "queued") for job in jobs]

    later = migrated("events", "--after", str(shown[0]["id"]))
    assert (later.returncode, later.stdout.count("\n"), jobs[1] in later.stdout) == (0, 1, True)

    with migrated.start("events", "--follow", "--json", "--after", str(shown[1]["id"])) as following, ended(following):
        third = add(database, a_snapshot("c"))
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["job_id"] == third
        following.send_signal(signal.SIGINT)
        assert following.wait(60) == 0
    database.dispose()


def test_an_id_of_an_event_is_not_negative(stillpoint: Command) -> None:
    refused = stillpoint("events", "--after", "-1")
    assert (refused.returncode, "--after" in refused.stderr) == (2, True)


def test_doctor_shows_the_settings_and_what_is_well(migrated: Command) -> None:
    result = migrated("doctor")
    assert "STILLPOINT_HOST_ID=hv1" in result.stdout
    for subject in ("state folder", "database", "schema", "token file", "overlays"):
        assert f"ok    {subject}: " in result.stdout


def test_doctor_shows_no_password_and_says_what_is_wrong_and_what_to_do(stillpoint: Command) -> None:
    stillpoint.state_dir.mkdir()
    token_file = stillpoint.state_dir / "admin.token"
    token_file.write_text("sp_x")
    token_file.chmod(0o644)
    result = stillpoint(
        "doctor",
        database_url="postgresql+psycopg://stillpoint:secret@127.0.0.1:1/stillpoint",
        libvirt_uri="qemu+unix:///system?socket=/nowhere",
        overlay_dir=str(stillpoint.state_dir / "missing"),
    )

    assert result.returncode == 1
    assert "secret" not in result.stdout + result.stderr
    assert "STILLPOINT_DATABASE_URL=postgresql+psycopg://stillpoint:***@127.0.0.1:1/stillpoint" in result.stdout
    for subject in ("database", "token file", "libvirt", "overlays"):
        assert f"FAIL  {subject}: " in result.stdout
    assert f"-> chmod 600 {token_file}" in result.stdout


def test_thaw_asks_libvirt_and_never_the_database(stillpoint: Command) -> None:
    nowhere = "qemu+unix:///system?socket=/nowhere"
    result = stillpoint("thaw", "db1", database_url="postgresql+psycopg://127.0.0.1:1/x", libvirt_uri=nowhere)

    assert result.returncode == 1
    assert f"libvirt cannot be reached: No connection to {nowhere}" in result.stderr
    assert "Traceback" not in result.stderr
    assert not stillpoint.state_dir.exists()


def test_the_settings_file_is_read_and_the_environment_wins(migrated: Command, tmp_path: Path) -> None:
    file = tmp_path / "stillpoint.env"
    file.write_text("STILLPOINT_HOST_ID=from-file\nSTILLPOINT_JOBS_PER_HOST=7\n")
    result = migrated("doctor", settings_file=str(file))
    assert "STILLPOINT_HOST_ID=hv1" in result.stdout
    assert "STILLPOINT_JOBS_PER_HOST=7" in result.stdout


@pytest.mark.parametrize(
    ("command", "settings", "named"),
    [
        (["doctor"], {"settings_file": "/nonexistent"}, "/nonexistent"),
        (["all"], {"job_per_host": "99"}, "did you mean STILLPOINT_JOBS_PER_HOST?"),
        (["migrate"], {"bind": ""}, "STILLPOINT_BIND: it is blank"),
        (["worker"], {"poll_seconds": "inf"}, "STILLPOINT_POLL_SECONDS: "),
        (["token", "list"], {"metrics_port": "99999"}, "STILLPOINT_METRICS_PORT: "),
        (["thaw", "db1"], {"lease_seconds": "1e12"}, "STILLPOINT_LEASE_SECONDS: "),
    ],
)
def test_no_command_works_with_settings_that_cannot_be_meant(
    stillpoint: Command, command: list[str], settings: dict[str, str], named: str
) -> None:
    result = stillpoint(*command, **settings)
    assert (result.returncode, "Traceback" in result.stderr) == (1, False)
    assert named in result.stderr
    assert not stillpoint.state_dir.exists()


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://u@127.0.0.1:1/d?password=secret", "postgresql+psycopg://u:secr@secret@127.0.0.1:1/d"]
)
def test_doctor_shows_no_password_wherever_it_stands(stillpoint: Command, url: str) -> None:
    result = stillpoint("doctor", database_url=url)
    assert result.returncode == 1
    assert "127.0.0.1:1/d" in result.stdout
    assert "secret" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("rules", "reason"),
    [("{", "JSON"), ('{"a65faa63-5ea8-4ebc-9dbd-a0c4db26912a": "warn"}', "lowers, warns, ignored")],
)
def test_writer_rules_that_cannot_be_used_are_named_at_the_start(migrated: Command, rules: str, reason: str) -> None:
    result = migrated("worker", writer_rules=rules)
    assert (result.returncode, "Traceback" in result.stderr) == (1, False)
    assert "STILLPOINT_WRITER_RULES: " in result.stderr
    assert reason in result.stderr


def test_a_process_with_hung_calls_ends_at_once_with_its_exit_status() -> None:
    """What such a call holds may make the interpreter's own end hang, too: here, a clean-up that never returns."""
    program = """
import atexit, threading
from service import cli
from service.deadlines import HELPERS, CallTimedOut
atexit.register(threading.Event().wait)
try:
    HELPERS.run(threading.Event().wait, 0.05, call="a call", lane="db1")
except CallTimedOut:
    cli._end(3)
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False).returncode == 3


def test_prune_removes_once_by_hand_and_a_dry_run_only_counts(migrated: Command) -> None:
    database = Database(open_engine(sqlite_url(migrated.state_dir / "stillpoint.db")))
    with database.write() as session:
        add_ended(session, 20)
        add_ended(session, 5)
    dry = migrated("prune", "--dry-run", keep_jobs_days="10")
    assert (dry.returncode, count_of(database, Job)) == (0, 2)
    real = migrated("prune", keep_jobs_days="10")
    assert (real.returncode, count_of(database, Job)) == (0, 1)
    for result in (dry, real):
        (line,) = [line for line in result.stdout.splitlines() if line.startswith("jobs ")]
        assert line.split()[1] == "1"
    again = migrated("prune", keep_jobs_days="10")
    assert {line.split()[1] for line in again.stdout.splitlines()} == {"0"}
    database.dispose()
