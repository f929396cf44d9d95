"""The chaos run judges rightly: each of its checks sees its own kind of breach, and a few rounds of it find none."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.chaos import invariants, remains, report, rounds
from tests.chaos.faults import FAULTS
from tests.chaos.invariants import Breach
from tests.chaos.outcome import Outcome
from tests.chaos.rounds import fault_of
from tests.chaos.stage import Stage
from tests.chaos.turns import Turns
from tests.lab.console import Heartbeat, Stall
from tests.lab.daemon import connect
from tests.lab.places import LabError

ROUNDS = 4


def stall(ms: float) -> Stall:
    return Stall(at_ms=0, ms=ms, mount="/data")


def beat(acknowledged: int) -> Heartbeat:
    return Heartbeat("/data", 0, 1, acknowledged, acknowledged, 0, 0)


def outcome(fault: str, stall_ms: float, *breaches: Breach, killed: bool = False) -> Outcome:
    return Outcome(1, fault, 1.0, stall_ms, killed, list(breaches))


def test_a_stall_longer_than_deadline_and_two_seconds_is_a_guest_left_frozen() -> None:
    assert list(invariants.frozen_too_long([stall(2_900)], 1_000, 0)) == []
    assert [breach.kind for breach in invariants.frozen_too_long([stall(3_100)], 1_000, 0)] == ["guests_left_frozen"]


def test_a_fault_that_kept_everybody_from_thawing_moves_the_deadline_by_its_own_length() -> None:
    assert list(invariants.frozen_too_long([stall(3_900)], 1_000, obstacle_s=1.0)) == []


def test_a_guest_that_is_frozen_in_the_end_was_left_frozen() -> None:
    assert list(invariants.left_frozen("thawed")) == []
    assert [breach.kind for breach in invariants.left_frozen("frozen")] == ["guests_left_frozen"]


def test_a_disk_that_ends_before_an_acknowledged_write_lost_it() -> None:
    assert list(invariants.writes_lost([beat(90)], range(1, 101))) == []
    assert [breach.kind for breach in invariants.writes_lost([beat(101)], range(1, 101))] == ["writes_lost"]


def test_a_hole_below_an_acknowledged_write_is_a_lost_write() -> None:
    held = [number for number in range(1, 101) if number != 80]
    assert [breach.kind for breach in invariants.writes_lost([beat(90)], held)] == ["writes_lost"]


def test_a_next_job_that_fails_is_no_true_story() -> None:
    fine: dict[str, Any] = {"state": "succeeded", "verdict": "filesystem", "error": None}
    assert list(invariants.next_job_failed(fine)) == []
    assert len(list(invariants.next_job_failed({**fine, "state": "failed", "verdict": "none"}))) == 1


def test_any_breach_makes_the_run_fail_and_is_counted_under_its_kind() -> None:
    outcomes = [outcome("nothing", 50), outcome("qemu_killed", 60, Breach("writes_lost", "…"))]
    document = report.as_document(7, outcomes)
    assert (document["rounds"], document["seed"], document["writes_lost"], report.is_clean(document)) == (2, 7, 1, False)
    assert document["by_fault"] == {"nothing": 1, "qemu_killed": 1}


def test_each_line_after_a_breach_tells_how_many_there_were() -> None:
    calm, broken = outcome("nothing", 50), outcome("qemu_killed", 60, Breach("writes_lost", "…"), Breach("chains_broken", "…"))
    assert "BREACHES" not in report.line([calm])
    assert "2 BREACHES in 1 rounds" in report.line([calm, broken])
    assert "2 BREACHES in 1 rounds" in report.line([calm, broken, calm])
    assert "4 BREACHES in 2 rounds" in report.line([broken, calm, broken])


def test_a_breach_tells_where_its_files_are_and_whether_there_was_a_job() -> None:
    broken = replace(outcome("qemu_killed", 60, Breach("writes_lost", "…")), place="1-6", job="79bb")
    assert all(word in report.breach_lines(broken)[0] for word in ("round 1,", "job 79bb", "in 1-6", "writes_lost"))
    assert "no job was created" in report.breach_lines(replace(broken, job=""))[0]


def fails(error: Exception) -> Callable[..., None]:
    def fail(_of: object) -> None:
        raise error

    return fail


def test_no_error_of_a_round_is_hidden_by_the_tidying_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    stage = SimpleNamespace(state_dir=tmp_path / "0-3" / "lane-0", note=notes.append)
    first, second = LabError("the disk could not be mounted"), ValueError("not in the list")
    monkeypatch.setitem(FAULTS, "nothing", replace(FAULTS["nothing"], prepare=fails(first), put_back=fails(second)))
    played = rounds.play(cast(Stage, stage), 1, 1, Turns(), ["nothing"])
    assert [str(first) in played.breaches[0].detail, str(second) in played.breaches[1].detail] == [True, True]
    assert any("Traceback" in note and str(first) in note for note in notes)


def test_an_error_while_another_one_is_tidied_up_tells_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_twice(_of: object) -> None:
        try:
            raise LabError("the reason")
        finally:
            fails(ValueError("the tidying"))(None)

    stage = SimpleNamespace(state_dir=tmp_path / "0-3" / "lane-0", note=lambda _text: None)
    monkeypatch.setitem(FAULTS, "nothing", replace(FAULTS["nothing"], prepare=fail_twice))
    played = rounds.play(cast(Stage, stage), 1, 1, Turns(), ["nothing"])
    assert [("the reason" in breach.detail, "the tidying" in breach.detail) for breach in played.breaches] == [(True, True)]


def test_what_a_kill_adds_is_counted_from_undisturbed_rounds() -> None:
    calm = [outcome("nothing", ms) for ms in (40, 50, 60)]
    killed = [outcome("worker_killed_in_window", ms, killed=True) for ms in (55, 70, 350)]
    document = report.as_document(7, [*calm, *killed])
    assert (document["stall_after_kill_ms_median"], document["stall_after_kill_ms_max"]) == (20, 300)


def test_a_seed_decides_the_faults_and_every_fault_comes() -> None:
    assert [fault_of(3, number) for number in range(30)] == [fault_of(3, number) for number in range(30)]
    assert {fault_of(3, number) for number in range(3000)} == set(FAULTS)


@pytest.mark.live
@pytest.mark.usefixtures("lab")
def test_a_few_rounds_leave_nothing_frozen_nothing_lost_and_tell_the_truth() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--rounds", str(ROUNDS), "--seed", "11"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1])["rounds"] == ROUNDS


@pytest.mark.live
@pytest.mark.usefixtures("lab")
def test_what_a_killed_run_leaves_is_cleared_up_by_the_next_one() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--rounds", "50", "--seed", "11", "--fault", "overlay_target_hangs", "--lanes", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as chaos:
        assert chaos.stderr is not None
        # The second round has begun when the first one is told.
        while not chaos.stderr.readline().strip().startswith("1 "):
            assert chaos.poll() is None, "the run ended before it was killed"
        left = [folder for folder in remains.folders() if remains.is_of(folder, chaos.pid)]
        chaos.kill()
    assert [folder.exists() for folder in left] == [True]
    assert left[0] in remains.clear_up()
    mounts, loops = Path("/proc/self/mounts").read_text(), subprocess.run(["losetup"], capture_output=True, text=True, check=True).stdout
    assert (left[0].exists(), str(left[0]) in mounts, left[0].name in loops) == (False, False, False)
    assert f"lab-chaos-0-{chaos.pid}" not in [domain.name() for domain in connect().listAllDomains()]
    assert f"lab-chaos-0-{chaos.pid}" not in mounts
