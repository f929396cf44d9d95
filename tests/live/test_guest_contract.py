"""One contract, two guests: the fake that the other tests trust, and a real one. What fails on one side only is a lie of the fake."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.disks import overlays
from service.errors import (
    AgentCommandBlocked,
    AgentCommandFailed,
    AgentNotAnswering,
    DomainPaused,
    GuestAlreadyFrozen,
    LibvirtCallFailed,
    NoAgentChannel,
    StillpointError,
)
from service.freeze.guard import Unguarded
from service.freeze.survey import survey_of
from service.freeze.window import WindowPlan, run
from service.hypervisor.guest import Guest
from service.hypervisor.handle import LibvirtDomain
from service.model.intent import Overlay
from service.model.inventory import READ_ONLY, Disk, DomainState
from service.model.verdict import HookState
from service.model.window import FreezeOutcome, ThawOutcome, classify_freeze_error, classify_thaw_error
from tests.fakes import FakeDisk, FakeDomain, FakeHost
from tests.fakes.dialect import SPOKEN, Dialect
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions, Odd

BLOCKED = ("guest-exec", "guest-fsfreeze-freeze")


@dataclass
class Subject:
    """A guest under test, and the few things that are done to it from outside."""

    guest: Guest
    pause: Callable[[], object]
    resume: Callable[[], object]
    power_off: Callable[[], object]


@dataclass(frozen=True)
class Wish:
    """How the guest shall be; the same for both kinds."""

    hook: str | None = None
    blocked: tuple[str, ...] = ()
    agent: bool = True
    channel: bool = True
    odd: bool = False


MakeSubject = Callable[[Wish], Subject]


def _fake(folder: Path, wish: Wish, dialect: Dialect) -> Subject:
    SPOKEN.begin(dialect)
    disks = [FakeDisk("vda", folder / "vda.qcow2", size=128 << 20), FakeDisk("vdb", folder / "vdb.qcow2", size=128 << 20)]
    if wish.odd:
        disks += [
            FakeDisk("vdc", folder / "vdc.qcow2", read_only=True),
            FakeDisk("hda", None, format="raw", device="cdrom", read_only=True),
        ]
    for disk in disks:
        if disk.source is not None:
            Path(disk.source).touch()
    domain = FakeDomain("contract", disks, channel=wish.channel)
    domain.agent.hook, domain.agent.blocked, domain.agent.connected = wish.hook, set(wish.blocked), wish.agent
    domain.agent.hook_text = "#!/bin/sh\nexit 3\n"
    domain.agent.version = {Dialect.libvirt_9_0: "7.2.22", Dialect.libvirt_11_3: "10.0.13"}[dialect]

    def resume() -> None:
        domain.state_now = (1, 1)

    return Subject(FakeHost(domain).guest("contract"), domain.pause, resume, lambda: domain.shut_off(cleanly=False))


def _real(make_guest: MakeGuest, wish: Wish) -> Subject:
    options = GuestOptions(
        disks=2,
        hook=wish.hook,  # type: ignore[arg-type]  # the lab's names are the fake's
        agent="qga" if wish.agent and wish.channel else "none",
        agent_channel=wish.channel,
        agent_args=(f"--block-rpcs={','.join(wish.blocked)}",) if wish.blocked else (),
        odd_disks=(Odd.READONLY, Odd.EMPTY_CDROM) if wish.odd else (),
        meter={"size_mb": 1},
    )
    return _subject(make_guest(options).start_and_wait())


def _subject(lab: LabGuest) -> Subject:
    domain = lab.domain
    handle = LibvirtDomain(domain, lab.connection.lookupByUUIDString)
    return Subject(Guest(handle, "lab"), domain.suspend, domain.resume, domain.destroy)


KINDS = [*Dialect, pytest.param("real", marks=pytest.mark.live)]


@pytest.fixture(params=KINDS)
def make_subject(request: pytest.FixtureRequest, tmp_path: Path) -> MakeSubject:
    """Guests of one kind, as the test wishes them."""
    if isinstance(request.param, Dialect):
        return lambda wish: _fake(tmp_path, wish, request.param)
    make_guest: MakeGuest = request.getfixturevalue("make_guest")
    return lambda wish: _real(make_guest, wish)


@pytest.fixture(scope="module")
def real_guest(lab: None) -> Iterator[Subject]:
    """One real guest for all tests that leave it thawed and running."""
    guest = LabGuest(GuestOptions(name=f"lab-t-contract-0-{os.getpid()}", disks=2, meter={"size_mb": 1})).start_and_wait()
    yield _subject(guest)
    guest.destroy()


@pytest.fixture(params=KINDS)
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guest]:
    """Two disks with an ext4 each, a Debian agent without a hook. Thawed again after the test."""
    subject: Subject = (
        _fake(tmp_path, Wish(), request.param) if isinstance(request.param, Dialect) else request.getfixturevalue("real_guest")
    )
    yield subject.guest
    subject.guest.thaw(10_000)


# --- asking ---------------------------------------------------------------------------------------


def test_ping_is_answered(guest: Guest) -> None:
    assert guest.agent("guest-ping") == {}


def test_info_lists_the_version_and_every_command_with_its_switch(guest: Guest) -> None:
    information = guest.agent("guest-info")
    assert isinstance(information["version"], str)
    rows = information["supported_commands"]
    assert all({"name", "enabled", "success-response"} == set(row) for row in rows)
    enabled = {row["name"] for row in rows if row["enabled"]}
    needed = {"guest-ping", "guest-exec", "guest-exec-status", "guest-get-fsinfo", "guest-get-osinfo", "guest-fsfreeze-status"}
    assert needed | {"guest-fsfreeze-freeze", "guest-fsfreeze-freeze-list", "guest-fsfreeze-thaw"} <= enabled


def test_osinfo_is_a_flat_object_with_an_id(guest: Guest) -> None:
    information = guest.agent("guest-get-osinfo")
    assert all(isinstance(value, str) for value in information.values())
    assert {"id", "name", "pretty-name"} <= set(information)
    assert information["id"] != "mswindows"


def test_filesystems_are_listed_with_the_disks_under_them(guest: Guest) -> None:
    found = {(fs.mountpoint, fs.name, fs.type, fs.disks) for fs in guest.filesystems()}
    assert found == {("/data", "vda", "ext4", ("vda",)), ("/data-vdb", "vdb", "ext4", ("vdb",))}


def test_a_command_that_the_agent_does_not_know_is_refused_as_blocked(guest: Guest) -> None:
    with pytest.raises(AgentCommandBlocked, match="has not been found"):
        guest.agent("guest-make-coffee")


def test_the_disks_of_the_domain_are_read(make_subject: MakeSubject) -> None:
    disks = {disk.target: disk for disk in make_subject(Wish(odd=True)).guest.disks()}
    assert {target: disk.why_not for target, disk in disks.items()} == {
        "vda": None,
        "vdb": None,
        "vdc": READ_ONLY,
        "hda": "it is a cdrom",
    }
    assert (disks["hda"].source, disks["vda"].format, disks["vda"].chain_depth) == (None, "qcow2", 0)


def test_a_disk_has_a_size_and_no_block_job_and_the_domain_no_job(guest: Guest) -> None:
    assert (guest.capacity("vda"), guest.block_job("vda"), guest.running_libvirt_job()) == (128 << 20, {}, 0)


def test_the_writes_to_a_disk_are_counted_and_stand_still_while_it_is_frozen(guest: Guest) -> None:
    before, deadline = guest.bytes_written("vda"), time.monotonic() + 60
    while guest.bytes_written("vda") == before:
        assert time.monotonic() < deadline, "a guest that writes all the time is not seen to write"
    guest.freeze(None, 10_000)
    frozen = guest.bytes_written("vda")
    time.sleep(1.0)
    assert guest.bytes_written("vda") == frozen


def test_a_fresh_domain_has_an_instance_and_nothing_of_libvirt_s_own_snapshots(guest: Guest) -> None:
    assert guest.instance() > 0
    assert (guest.snapshot_names(), guest.has_managed_save(), guest.was_migrated_away()) == ([], False, False)
    assert guest.settled_sources() == guest.sources()


def test_the_last_question_before_a_freeze_finds_the_guest_free_or_frozen(guest: Guest) -> None:
    guest.require_idle_agent(5_000)
    guest.freeze(None, 10_000)
    with pytest.raises(GuestAlreadyFrozen):
        guest.require_idle_agent(5_000)


def test_a_disk_that_does_not_exist_is_an_error_of_libvirt(guest: Guest) -> None:
    with pytest.raises(LibvirtCallFailed, match=r"error 8.*vdz"):
        guest.block_job("vdz")


def test_a_running_domain_is_seen_with_its_agent(guest: Guest) -> None:
    assert (guest.state(), guest.is_shut_off(), guest.was_shut_off_cleanly()) == (DomainState.running, False, None)
    assert (guest.is_persistent(), guest.has_agent_channel(), guest.agent_is_connected()) == (True, True, True)


# --- freezing -------------------------------------------------------------------------------------


def test_freeze_counts_filesystems_status_follows_and_thaw_counts_the_same(guest: Guest) -> None:
    assert guest.is_frozen() is False
    assert guest.freeze(None, 10_000) == 2
    assert guest.is_frozen() is True
    assert guest.thaw(10_000) == 2
    assert guest.is_frozen() is False


def test_a_second_thaw_finds_nothing(guest: Guest) -> None:
    guest.freeze(None, 10_000)
    assert [guest.thaw(10_000), guest.thaw(10_000)] == [2, 0]


@pytest.mark.parametrize("mountpoints", [None, ["/data"]])
def test_a_second_freeze_is_refused(guest: Guest, mountpoints: list[str] | None) -> None:
    guest.freeze(None, 10_000)
    with pytest.raises(AgentCommandBlocked, match=r"has been disabled: the (agent is in frozen state|command is not allowed)"):
        guest.freeze(mountpoints, 10_000)


def test_a_list_freezes_only_what_it_names(guest: Guest) -> None:
    assert guest.freeze(["/data-vdb"], 10_000) == 1
    assert guest.thaw(10_000) == 1


def test_a_list_that_names_nothing_mounted_freezes_nothing_without_an_error(guest: Guest) -> None:
    assert guest.freeze(["/nowhere"], 10_000) == 0
    assert guest.is_frozen() is False


def test_an_empty_list_freezes_nothing(guest: Guest) -> None:
    assert guest.freeze([], 10_000) == 0


def test_a_frozen_guest_answers_a_few_commands_only(guest: Guest) -> None:
    guest.freeze(None, 10_000)
    guest.ping()
    enabled = {row["name"] for row in guest.agent("guest-info")["supported_commands"] if row["enabled"]}
    assert {"guest-ping", "guest-fsfreeze-thaw", "guest-fsfreeze-status"} <= enabled
    assert not {"guest-exec", "guest-get-fsinfo", "guest-fsfreeze-freeze"} & enabled
    for command in ("guest-exec", "guest-get-osinfo"):
        with pytest.raises(AgentCommandBlocked, match=f"{command} has been disabled"):
            guest.agent(command)
    with pytest.raises(AgentCommandBlocked, match="guest-get-fsinfo has been disabled"):
        guest.filesystems()


# --- programs -------------------------------------------------------------------------------------


def test_a_program_gives_its_output_and_its_exit_code(guest: Guest) -> None:
    echoed = guest.execute("/bin/echo", ["hello", "there"], budget_ms=10_000)
    assert (echoed.exit_code, echoed.signal, echoed.output, echoed.error_output) == (0, None, b"hello there\n", b"")
    assert guest.execute("/bin/sync", budget_ms=10_000).exit_code == 0
    assert guest.execute("/bin/sh", ["-c", "exit 3"], budget_ms=10_000).exit_code == 3


def test_a_program_that_is_not_there_is_an_answer_of_the_agent(guest: Guest) -> None:
    with pytest.raises(AgentCommandFailed, match="No such file or directory"):
        guest.execute("/bin/no-such-program", budget_ms=10_000)


def test_the_result_of_a_program_is_given_once(guest: Guest) -> None:
    pid = guest.agent("guest-exec", {"path": "/bin/sync", "arg": [], "capture-output": True})["pid"]
    while not guest.agent("guest-exec-status", {"pid": pid})["exited"]:
        time.sleep(0.02)
    with pytest.raises(AgentCommandFailed, match=r"Invalid parameter 'pid'|does not exist"):
        guest.agent("guest-exec-status", {"pid": pid})


def test_the_survey_reads_a_linux_guest(guest: Guest) -> None:
    found = survey_of(guest)
    assert (found.agent.fault, found.agent.frozen, found.busy) == (None, False, {})
    assert found.linux is not None
    assert found.linux.uptime_s is not None
    assert found.linux.uptime_s > 0
    assert (found.linux.loop_mounts, found.linux.network_mounts, found.hook) == ((), (), HookState.absent)


# --- the point in time ----------------------------------------------------------------------------


def _overlays(guest: Guest, mark: str) -> list[Overlay]:
    disks: list[Disk] = [disk for disk in guest.disks() if disk.why_not is None]
    made = overlays.plan(guest, disks, mark, 1, None)
    overlays.create(made)
    return made


def test_a_snapshot_moves_the_disks_now_and_for_the_next_start(make_subject: MakeSubject) -> None:
    guest = make_subject(Wish(odd=True)).guest
    before = guest.sources()
    made = _overlays(guest, "0a1b2c3d")
    guest.prepare_snapshot({overlay.target: overlay.path for overlay in made})()
    expected = before | {overlay.target: overlay.path for overlay in made}
    assert guest.sources() == guest.persistent_sources() == expected
    assert {disk.target: disk.chain_depth for disk in guest.disks()} == {"vda": 1, "vdb": 1, "vdc": 0, "hda": 0}


def test_a_snapshot_whose_overlay_is_missing_moves_nothing(make_subject: MakeSubject) -> None:
    guest = make_subject(Wish()).guest
    before = guest.sources()
    with pytest.raises(LibvirtCallFailed, match="missing existing file for disk vd"):
        guest.prepare_snapshot({target: f"{source}.missing" for target, source in before.items()})()
    assert guest.sources() == before


def test_an_overlay_that_is_in_use_cannot_be_used_again(make_subject: MakeSubject) -> None:
    guest = make_subject(Wish()).guest
    take = guest.prepare_snapshot({overlay.target: overlay.path for overlay in _overlays(guest, "0a1b2c3d")})
    take()
    after = guest.sources()
    with pytest.raises(LibvirtCallFailed, match='Failed to get "write" lock'):
        take()
    assert guest.sources() == after


def test_a_whole_window_holds_and_proves_it(make_subject: MakeSubject) -> None:
    guest = make_subject(Wish()).guest
    take = guest.prepare_snapshot({overlay.target: overlay.path for overlay in _overlays(guest, "0a1b2c3d")})
    record = run(guest, lambda _hold: take(), WindowPlan(mountpoints=None, freeze_timeout_ms=20_000, hold_limit_ms=10_000), Unguarded())
    assert (record.freeze.outcome, record.thaw.outcome, record.point_error) == (FreezeOutcome.frozen, ThawOutcome.completed, None)
    assert record.instants.point_in_time_was_inside_the_hold
    assert record.frozen_afterwards is False


# --- merging an overlay back ------------------------------------------------------------------------


def _on_an_overlay(guest: Guest) -> tuple[str, str]:
    """The files of vda below and on top."""
    base = str(guest.sources()["vda"])
    guest.prepare_snapshot({overlay.target: overlay.path for overlay in _overlays(guest, "0a1b2c3d")})()
    return base, str(guest.sources()["vda"])


def _start_merge(guest: Guest) -> None:
    guest.start_merge("vda")
    while not (mirror := guest.mirror("vda")) or not mirror.is_ready:
        time.sleep(0.02)


def test_an_overlay_is_merged_into_the_file_below_and_the_guest_goes_on_there(make_subject: MakeSubject) -> None:
    guest = make_subject(Wish()).guest
    base, _ = _on_an_overlay(guest)
    assert guest.mirror("vda") is None
    _start_merge(guest)
    mirror = guest.mirror("vda")
    assert mirror is not None
    assert (mirror.job, mirror.into) == ("active-commit", base)
    with pytest.raises(LibvirtCallFailed):
        guest.start_merge("vda")
    guest.pivot("vda")
    assert guest.mirror("vda") is None
    assert (guest.sources()["vda"], guest.persistent_sources()["vda"]) == (base, base)
    guest.ping()


def test_a_merge_that_is_stopped_leaves_the_guest_on_its_overlay(make_subject: MakeSubject) -> None:
    guest = make_subject(Wish()).guest
    _, overlay = _on_an_overlay(guest)
    _start_merge(guest)
    guest.stop_merge("vda")
    assert guest.mirror("vda") is None
    assert (guest.sources()["vda"], guest.persistent_sources()["vda"]) == (overlay, overlay)
    guest.ping()


# --- guests with something about them -------------------------------------------------------------


def test_a_hook_that_fails_on_freeze_is_told_and_nothing_is_frozen(make_subject: MakeSubject) -> None:
    guest = make_subject(Wish(hook="fail")).guest
    with pytest.raises(AgentCommandFailed) as refused:
        guest.freeze(None, 10_000)
    assert classify_freeze_error(refused.value.facts["message"]) is FreezeOutcome.hook_failed
    assert guest.is_frozen() is False
    assert guest.thaw(10_000) == 0


def test_a_hook_that_fails_on_thaw_is_told_and_the_guest_is_thawed(make_subject: MakeSubject) -> None:
    guest = make_subject(Wish(hook="fail_thaw")).guest
    assert guest.freeze(None, 10_000) == 2
    with pytest.raises(AgentCommandFailed) as refused:
        guest.thaw(10_000)
    assert classify_thaw_error(refused.value.facts["message"]) is ThawOutcome.hook_failed
    assert guest.is_frozen() is False


def test_a_hook_is_found_by_the_survey(make_subject: MakeSubject) -> None:
    found = survey_of(make_subject(Wish(hook="fail")).guest)
    assert found.linux is not None
    assert (found.linux.hook_path, found.hook) == ("/etc/qemu/fsfreeze-hook", HookState.unknown)


def test_blocked_commands_are_listed_as_disabled_and_refused(make_subject: MakeSubject) -> None:
    guest = make_subject(Wish(blocked=BLOCKED)).guest
    enabled = {row["name"]: row["enabled"] for row in guest.agent("guest-info")["supported_commands"]}
    assert [enabled[command] for command in BLOCKED] == [False, False]
    with pytest.raises(AgentCommandBlocked, match="guest-fsfreeze-freeze has been disabled"):
        guest.freeze(None, 10_000)
    with pytest.raises(AgentCommandBlocked, match="guest-exec has been disabled"):
        guest.execute("/bin/sync", budget_ms=5_000)
    assert guest.thaw(10_000) == 0


def test_a_guest_without_an_agent_costs_no_waiting(make_subject: MakeSubject) -> None:
    guest = make_subject(Wish(agent=False)).guest
    assert guest.agent_is_connected() is False
    started = time.monotonic()
    for ask in (guest.ping, guest.is_frozen, guest.filesystems, lambda: guest.freeze(None, 60_000), lambda: guest.thaw(60_000)):
        with pytest.raises(AgentNotAnswering, match="QEMU guest agent is not connected"):
            ask()
    # An agent that is connected and silent costs 5 s for each of them, or more.
    assert time.monotonic() - started < 15


def test_a_domain_without_a_channel_says_so(make_subject: MakeSubject) -> None:
    guest = make_subject(Wish(channel=False)).guest
    assert (guest.has_agent_channel(), guest.agent_is_connected()) == (False, None)
    with pytest.raises(NoAgentChannel):
        guest.ping()


def test_a_paused_domain_answers_nothing_and_everything_again_when_it_runs(make_subject: MakeSubject) -> None:
    subject = make_subject(Wish())
    subject.pause()
    assert subject.guest.state() is DomainState.paused
    for ask in (subject.guest.ping, subject.guest.filesystems, lambda: subject.guest.thaw(5_000)):
        with pytest.raises(DomainPaused):
            ask()
    subject.resume()
    subject.guest.ping()


def test_a_domain_that_was_switched_off_is_snapshotted_without_its_agent(make_subject: MakeSubject) -> None:
    subject = make_subject(Wish())
    subject.power_off()
    guest = subject.guest
    assert (guest.state(), guest.was_shut_off_cleanly()) == (DomainState.shut_off, False)
    assert (guest.instance(), guest.has_managed_save()) == (-1, False)
    for ask in (guest.ping, lambda: guest.block_job("vda"), guest.running_libvirt_job):
        with pytest.raises(StillpointError, match="not running"):
            ask()
    made = _overlays(guest, "0a1b2c3d")
    guest.prepare_snapshot({overlay.target: overlay.path for overlay in made})()
    assert guest.sources() == guest.persistent_sources() == {overlay.target: overlay.path for overlay in made}
