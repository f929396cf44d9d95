"""The key of a repository comes by reference, and is seen by nobody who does not need it."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from service.errors import KeyUnusable
from service.repository import keys
from service.repository.hand import Hand
from service.repository.keys import MAX_KEY_BYTES, Key
from service.repository.report import Report
from tests.repository.processes import runs, until, until_none_runs

SECRET = "corrèct horse"


@pytest.fixture(autouse=True)
def every_program_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_is_allowed", lambda _: True)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "the key, of: us\n"
    file.write_text(f"{SECRET}\n")
    return file


def test_a_key_is_what_is_in_its_file_without_one_newline(key_file: Path) -> None:
    assert Key(f"file:{key_file}").read() == SECRET.encode()
    key_file.write_text(f"{SECRET}\n\n")
    assert Key(f"file:{key_file}").read() == f"{SECRET}\n".encode()


def test_a_key_is_what_its_command_writes(key_file: Path) -> None:
    assert Key(f"command:cat '{key_file}'").read() == SECRET.encode()


def test_a_program_that_the_operator_did_not_name_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    made = tmp_path / "made"
    for programs in ([], ["/usr/bin/true"]):
        keys.allow(programs)
        with pytest.raises(KeyUnusable):
            Key(f"command:/usr/bin/touch {made}").read()
    assert not made.exists()


def test_a_program_that_the_operator_named_gives_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    keys.allow(["/usr/bin/true", "/usr/bin/echo"])
    try:
        assert Key("command:/usr/bin/echo secret").read() == b"secret"
        with pytest.raises(KeyUnusable):
            Key("command:echo secret").read()
    finally:
        keys.allow([])
    assert Key("command:echo secret", is_operators=True).read() == b"secret"


def test_a_command_is_not_given_to_a_shell(tmp_path: Path) -> None:
    assert Key(f"command:echo a; touch {tmp_path}/made").read() == f"a; touch {tmp_path}/made".encode()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("reference", ["", "/path", "file:", "file:relative", "command:", "command:  ", "command:echo 'a", "env:KEY"])
def test_another_form_of_reference_is_refused_at_once(reference: str) -> None:
    with pytest.raises(KeyUnusable) as raised:
        Key(reference)
    assert raised.value.facts["key"] == reference


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"a\0b", b"\xff\xfe", b"x" * (MAX_KEY_BYTES + 1)],
    ids=["empty", "only a newline", "a NUL", "not UTF-8", "too long"],
)
def test_what_cannot_be_a_passphrase_is_refused(key_file: Path, content: bytes) -> None:
    key_file.write_bytes(content)
    for reference in (f"file:{key_file}", f"command:cat '{key_file}'"):
        with pytest.raises(KeyUnusable) as raised:
            Key(reference).read()
        assert raised.value.facts["key"] == reference


def test_the_longest_key_is_taken(key_file: Path) -> None:
    key_file.write_bytes(b"x" * MAX_KEY_BYTES)
    assert Key(f"file:{key_file}").read() == Key(f"command:cat '{key_file}'").read() == b"x" * MAX_KEY_BYTES


def test_a_file_that_is_not_there_or_is_not_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("absent", "fifo", "."):
        with pytest.raises(KeyUnusable):
            Key(f"file:{tmp_path / name}").read()


@pytest.mark.parametrize("command", ["false", "/no/such/program", "sh -c 'echo key; exit 3'", "sh -c 'echo key; kill -9 $$'"])
def test_a_command_that_fails_gives_no_key(command: str) -> None:
    with pytest.raises(KeyUnusable):
        Key(f"command:{command}").read()


def test_a_command_that_hangs_is_killed_with_its_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "PATIENCE_S", 1.0)
    script = f"sleep 1000 & echo $$ $! > {tmp_path}/pids; wait"
    with pytest.raises(KeyUnusable):
        Key(f'command:sh -c "{script}"').read()
    until_none_runs([int(pid) for pid in (tmp_path / "pids").read_text().split()])


def test_a_command_that_closes_its_output_and_stays_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "PATIENCE_S", 1.0)
    with pytest.raises(KeyUnusable):
        Key("command:sh -c 'echo key; exec >&-; sleep 1000'").read()


def test_a_command_that_writes_without_end_is_killed() -> None:
    with pytest.raises(KeyUnusable):
        Key("command:yes").read()


def test_what_a_command_left_running_is_killed(tmp_path: Path) -> None:
    """It holds the output open no longer than the key needs, and nothing of it stays."""
    assert Key(f'command:sh -c "sleep 1000 >&- & echo $! > {tmp_path}/pid; echo key"').read() == b"key"
    until_none_runs([int((tmp_path / "pid").read_text())])


def test_the_hand_has_the_key_and_gives_it_to_programs(trial_steps: None, tmp_path: Path, key_file: Path) -> None:
    with Hand(str(tmp_path), key=Key(f"file:{key_file}")) as hand:
        result = hand.call("key", {})
        assert (result["key"], result["in_program"]) == (SECRET, SECRET)
        process = Path(f"/proc/{result['pid']}")
        for file in ("cmdline", "environ"):
            assert SECRET.encode() not in (process / file).read_bytes()


def test_a_key_that_changed_is_read_again_by_the_next_process(trial_steps: None, tmp_path: Path, key_file: Path) -> None:
    with Hand(str(tmp_path), key=Key(f"file:{key_file}")) as hand:
        assert hand.call("key", {})["key"] == SECRET
        key_file.write_text("other")
        hand.close()
        assert hand.call("key", {})["key"] == "other"


def test_without_its_key_no_process_is_started(trial_steps: None, tmp_path: Path) -> None:
    with Hand(str(tmp_path), key=Key(f"file:{tmp_path}/absent")) as hand, pytest.raises(KeyUnusable):
        hand.call("echo", {})


def test_a_core_of_the_hand_is_never_written(trial_steps: None, tmp_path: Path) -> None:
    with Hand(str(tmp_path)) as hand:
        limits = Path(f"/proc/{hand.call('echo', {})['pid']}/limits").read_text()
    (core,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]


def test_the_key_in_memory_can_be_opened_more_than_once() -> None:
    """QEMU opens it for each node of a chain."""
    descriptor = Report(key=b"key").secret_file()
    try:
        assert stat.S_ISREG(os.fstat(descriptor).st_mode)
        for _ in range(2):
            read = subprocess.run(["cat", f"/dev/fd/{descriptor}"], pass_fds=[descriptor], capture_output=True, check=True)
            assert read.stdout == b"key"
    finally:
        os.close(descriptor)


def test_the_settings_of_the_service_do_not_reach_the_hand(trial_steps: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLPOINT_DATABASE_URL", "postgresql://user:password@host/")
    with Hand(str(tmp_path)) as hand:
        assert b"password" not in Path(f"/proc/{hand.call('echo', {})['pid']}/environ").read_bytes()


def test_the_processes_of_this_test_can_be_told_apart() -> None:
    process = subprocess.Popen(["sleep", "1000"])
    assert runs(process.pid)
    process.kill()
    until(lambda: not runs(process.pid), "a process that was killed counts as running")
    process.wait()
