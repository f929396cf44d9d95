"""The commands that ask the service over HTTP, as a user meets them: what they ask for, what they print, and how they end."""

import json
import os
import pty
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.cli_jobs import MODES, Check
from service.cli_progress import in_bytes, in_time, in_words
from service.errors import ServiceUnreachable, TokenNotKnown
from service.model.repository import RestoreMode
from service.model.requests import VerifyRequest
from tests.scripted_service import TOKEN, ScriptedService, Stillpoint, error_document, scripted

JOB = "7f6e3f0c-0000-4000-8000-000000000001"
POINT = "7f6e3f0c-0000-4000-8000-000000000002"


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    with scripted() as running:
        yield running


@pytest.fixture
def stillpoint(tmp_path: Path, service: ScriptedService) -> Stillpoint:
    return Stillpoint(tmp_path, service)


def job(state: str, **fields: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("phase", "progress", "verdict", "recovery_point", "result", "error"))
    return {"id": JOB, "kind": "backup", "state": state, "phases": [], **empty, **fields}


def progress(done: int, disk: str = "vda") -> dict[str, Any]:
    return {"phase": "transfer", "disk": disk, "done_bytes": done, "total_bytes": 1 << 30, "rate_bytes_s": 1 << 20, "seconds_left": 90.0}


# --- what they ask for ------------------------------------------------------------------------------


def test_a_backup_asks_for_what_was_given_and_leaves_the_rest_to_the_service(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says("POST /api/v1/jobs", job("queued"), status=202)
    done = stillpoint("backup", "db1", "-r", "nas", "--level", "full", "--disk", "vda", "--label", "by=hand", "--compress", "--no-wait")
    assert (done.returncode, done.stdout) == (0, f"{JOB}\n")
    asked = {"kind": "backup", "domain": "db1", "repository": "nas", "level": "full", "disks": ["vda"], "compare": "copied"}
    assert service.bodies_of("POST /api/v1/jobs") == [asked | {"compress": True, "labels": {"by": "hand"}}]
    assert service.tokens == {f"Bearer {TOKEN}"}


def test_a_restore_a_verify_and_a_removal_ask_for_their_point(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says("POST /api/v1/jobs", job("queued"), status=202)
    stillpoint("restore", POINT, "--mode", "instant", "--name", "db2", "--start", "--no-wait")
    stillpoint("restore", POINT, "--mode", "instant", "--name", "db2", "--start", "--verify", "before", "--no-wait")
    stillpoint("verify", POINT, "--check", "bytes", "--no-wait")
    stillpoint("verify", POINT, "--heal", "--no-wait")
    stillpoint("remove", POINT, "--no-wait")
    stillpoint("remove", POINT, POINT, "--with-needing", "--no-wait")
    stillpoint("remove", POINT, "--merge", "--no-wait")
    stillpoint("merge", POINT, "--no-wait")
    restore = {"kind": "restore", "recovery_point": POINT, "mode": "instant", "identity": "auto", "name": "db2", "start": True}
    assert service.bodies_of("POST /api/v1/jobs") == [
        restore,
        restore | {"verify": "before"},
        {"kind": "verify", "recovery_point": POINT, "checks": ["bytes"]},
        {"kind": "verify", "recovery_point": POINT, "heal": True},
        {"kind": "prune", "recovery_points": [POINT]},
        {"kind": "prune", "recovery_points": [POINT, POINT], "with_needing": True},
        {"kind": "merge", "recovery_points": [POINT], "remove": True},
        {"kind": "merge", "recovery_points": [POINT]},
    ]


def test_a_plan_is_shown_and_nothing_is_asked_for(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says("POST /api/v1/restores/preview", {"disks": [{"target": "vda"}]})
    done = stillpoint("restore", POINT, "--mode", "new", "--plan")
    assert json.loads(done.stdout) == {"disks": [{"target": "vda"}]}
    assert [call for call, _ in service.asked] == ["POST /api/v1/restores/preview"]
    assert service.asked[0][1] == {"recovery_point": POINT, "mode": "new", "identity": "auto"}


def test_a_plan_that_takes_longer_is_waited_for(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says("POST /api/v1/restores/preview", {"disks": [], "job": JOB, "is_complete": False}, status=202)
    service.says(f"GET /api/v1/jobs/{JOB}", job("succeeded", result={"restore": {"plan": {"disks": [{"target": "vda"}]}}}))
    done = stillpoint("restore", POINT, "--mode", "new", "--plan")
    assert json.loads(done.stdout) == {"disks": [{"target": "vda"}], "job": JOB, "is_complete": True}


@pytest.mark.parametrize("arguments", [["backup", "db1"], ["restore", POINT], ["backup", "db1", "-r", "nas", "--label", "without"]])
def test_what_is_missing_is_a_wrong_command(stillpoint: Stillpoint, service: ScriptedService, arguments: list[str]) -> None:
    assert stillpoint(*arguments).returncode == 2
    assert service.asked == []


# --- how they end -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 3)])
def test_a_command_ends_as_its_job_ended(stillpoint: Stillpoint, service: ScriptedService, state: str, code: int) -> None:
    service.says("POST /api/v1/jobs", job("queued"), status=202)
    service.says(f"GET /api/v1/jobs/{JOB}", job("queued"), job("running", phase="transfer", progress=progress(0)), job(state))
    assert stillpoint("backup", "db1", "-r", "nas").returncode == code


def test_the_error_of_a_job_is_a_message_and_a_remedy(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(f"GET /api/v1/jobs/{JOB}", job("failed", error=error_document("repository_full")))
    said = stillpoint("job", "wait", JOB).stderr
    assert ("detail of repository_full" in said, "remedy of repository_full" in said) == (True, True)


def test_a_refusal_of_the_service_is_shown(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says("POST /api/v1/jobs", error_document("repository_not_found") | {"status": 404}, status=404)
    done = stillpoint("backup", "db1", "-r", "nowhere")
    assert done.returncode == 1
    assert ("detail of repository_not_found" in done.stderr, "remedy of repository_not_found" in done.stderr) == (True, True)


def test_json_is_the_job_and_nothing_else(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(f"GET /api/v1/jobs/{JOB}", job("running", phase="transfer"))
    assert json.loads(stillpoint("job", "show", JOB, "--json").stdout) == job("running", phase="transfer")


def test_what_a_job_did_is_told(stillpoint: Stillpoint, service: ScriptedService) -> None:
    point = {"id": POINT, "point_in_time_at": "2026-11-27T21:00:00Z"}
    disk = {"target": "vda", "level": "bitmap", "reason": "whole", "copied_bytes": 1 << 20, "stored_bytes": 1 << 10}
    plan = {"domain": {"id": "u", "name": "db2"}, "warnings": [{"code": "c", "detail": "detail of the warning"}]}
    result = {
        "backup": {"disks": [disk]},
        "verify": {"proofs": [{"kind": "bytes", "ok": True}, {"kind": "filesystem", "ok": None}]},
        "restore": {"plan": plan, "reads_repository": ["vda"], "old_disks": ["/old/vda.qcow2"]},
    }
    service.says(f"GET /api/v1/jobs/{JOB}", job("succeeded", verdict="crash", recovery_point=point, result=result))
    said = stillpoint("job", "show", JOB).stdout
    told = ["crash", POINT, "vda: bitmap (whole), 1.0 MiB", "bytes: ", "filesystem: ", "db2", "detail of the warning", "/old/vda.qcow2"]
    assert [words for words in told if words not in said] == []


def test_a_job_is_cancelled(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(f"POST /api/v1/jobs/{JOB}/cancel", job("running"), status=202)
    assert stillpoint("job", "cancel", JOB).returncode == 0


def test_an_id_with_any_character_stays_one_segment(stillpoint: Stillpoint, service: ScriptedService) -> None:
    stillpoint("job", "show", "../hosts?x=1")
    assert [call for call, _ in service.asked] == ["GET /api/v1/jobs/..%2Fhosts%3Fx%3D1"]


def test_a_service_that_is_away_is_said_with_its_address(stillpoint: Stillpoint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    done = stillpoint("job", "show", JOB, STILLPOINT_URL=url)
    assert done.returncode == 1
    assert done.stderr.startswith(ServiceUnreachable.title)
    assert url in done.stderr


def test_a_proxy_of_the_environment_never_gets_the_token(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(f"GET /api/v1/jobs/{JOB}", job("succeeded"))
    assert stillpoint("job", "show", JOB, http_proxy="http://127.0.0.1:1", no_proxy="").returncode == 0


def test_the_token_of_the_service_on_this_machine_is_found(stillpoint: Stillpoint, service: ScriptedService, tmp_path: Path) -> None:
    service.says(f"GET /api/v1/jobs/{JOB}", job("succeeded"))
    (tmp_path / "admin.token").write_text("sp_first\n")
    assert stillpoint("job", "show", JOB, STILLPOINT_TOKEN=None).returncode == 0
    assert service.tokens == {"Bearer sp_first"}


def test_the_service_on_this_machine_is_found(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(f"GET /api/v1/jobs/{JOB}", job("succeeded"))
    port = service.url.rpartition(":")[2]
    assert stillpoint("job", "show", JOB, STILLPOINT_URL=None, STILLPOINT_PORT=port, STILLPOINT_BIND="0.0.0.0").returncode == 0


def test_without_a_token_the_command_says_where_one_would_be(stillpoint: Stillpoint, tmp_path: Path) -> None:
    done = stillpoint("job", "show", JOB, STILLPOINT_TOKEN=None)
    assert done.returncode == 1
    assert done.stderr.startswith(TokenNotKnown.title)
    assert str(tmp_path / "admin.token") in done.stderr


# --- while they wait --------------------------------------------------------------------------------


def test_elsewhere_than_on_a_terminal_each_phase_and_each_disk_is_a_line(stillpoint: Stillpoint, service: ScriptedService) -> None:
    running = [job("running", phase="transfer", progress=progress(done, disk)) for disk in ("vda", "vdb") for done in (0, 1, 2)]
    service.says(f"GET /api/v1/jobs/{JOB}", *running, job("running", phase="seal"), job("succeeded"))
    lines = stillpoint("job", "wait", JOB).stderr.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["transfer", "vda"], ["transfer", "vdb"]]
    assert lines[2:] == ["seal"]


def test_on_a_terminal_there_are_bars(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(f"GET /api/v1/jobs/{JOB}", *[job("running", phase="transfer", progress=progress(1 << 29))] * 3, job("succeeded"))
    ours, terminal = pty.openpty()
    environment = stillpoint.environment | {"TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(stillpoint.line("job", "wait", JOB), env=environment, stderr=terminal, stdout=subprocess.PIPE)
    os.close(terminal)
    said = _all_from(ours)
    assert process.wait(30) == 0
    process.communicate()
    assert "━" in said
    assert "512.0 MiB of 1.0 GiB" in said


def _all_from(terminal: int) -> str:
    pieces = []
    try:
        while piece := os.read(terminal, 4096):
            pieces.append(piece)
    except OSError:
        # Linux says so when the other side of a terminal is closed.
        pass
    finally:
        os.close(terminal)
    return b"".join(pieces).decode()


def test_ctrl_c_ends_the_wait_and_not_the_job(stillpoint: Stillpoint, service: ScriptedService) -> None:
    asked = threading.Event()
    answer = service.answer

    def answer_and_tell(call: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        asked.set()
        return answer(call, body)

    service.answer = answer_and_tell  # type: ignore[method-assign]
    service.says(f"GET /api/v1/jobs/{JOB}", job("running", phase="transfer"))
    line = ["env", "--default-signal=INT", *stillpoint.line("job", "wait", JOB)]
    process = subprocess.Popen(line, env=stillpoint.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert asked.wait(30)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert all(call.startswith("GET") for call, _ in service.asked)


def test_a_service_that_restarts_meanwhile_is_asked_again(stillpoint: Stillpoint, service: ScriptedService) -> None:
    """The connection of the first answer is cut in its middle."""
    service.answers[f"GET /api/v1/jobs/{JOB}"] = [(200, {"cut": "x"}), (200, job("succeeded"))]
    service.cut_first = True
    assert stillpoint("job", "wait", JOB).returncode == 0


# --- the words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (1 << 70, "1048576.0 PiB")]
)
def test_bytes_are_said_in_a_unit_that_fits(count: int, words: str) -> None:
    assert in_bytes(count) == words


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (90, "1 min 30 s"), (3 * 3600 + 120, "3 h 02 min")])
def test_times_are_said_in_a_unit_that_fits(seconds: float, words: str) -> None:
    assert in_time(seconds) == words


def test_what_is_not_known_is_left_out() -> None:
    unknown = {"done_bytes": 1024, "total_bytes": None, "rate_bytes_s": None, "seconds_left": None}
    assert (in_words(unknown), in_words({})) == ("1.0 KiB", "")


def test_a_job_that_waits_says_for_what_and_until_when() -> None:
    waits = {"code": "repository_gone", "detail": "/mnt/nas is away", "since": "10:00", "until": "10:10"}
    words = in_words({"done_bytes": 0, "waiting_for": waits})
    assert all(waits[name] in words for name in ("detail", "since", "until"))


# --- recovery points ------------------------------------------------------------------------------


def test_the_points_of_a_domain_are_listed_with_the_ids_that_other_commands_need(stillpoint: Stillpoint, service: ScriptedService) -> None:
    point = {"id": POINT, "point_in_time_at": "2026-01-31T22:00:00Z", "domain": {"id": "d", "name": "db1"}, "state": "sealed"}
    sealed = point | {"verdict": "filesystem", "repository": "r", "size_bytes": 1 << 20}
    service.says("GET /api/v1/recovery-points?domain=db1&repository=nas", {"items": [sealed], "next_cursor": None})
    done = stillpoint("points", "--domain", "db1", "--repository", "nas")
    assert (done.returncode, done.stdout.split()[:3]) == (0, [POINT, "2026-01-31T22:00:00Z", "db1"])
    as_json = stillpoint("points", "--domain", "db1", "-r", "nas", "--json")
    assert json.loads(as_json.stdout) == sealed


def test_a_verify_offers_what_the_service_checks() -> None:
    assert {check.value for check in Check} == {kind.value for kind in VerifyRequest.checks}


@pytest.mark.parametrize("mode", list(RestoreMode))
def test_the_help_explains_every_mode_of_a_restore(mode: RestoreMode) -> None:
    assert f"{mode.value}: " in MODES
