"""A domain none of whose calls can hang its caller, and what the guest above it makes of that."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt as _libvirt
import pytest

from service.deadlines import HelperThreads
from service.errors import AgentBusy, AgentNotAnswering, DomainBusy, GuestAlreadyFrozen, LibvirtCallTimedOut
from service.freeze.window import thaw_until_answered
from service.hypervisor.bounded_domain import SNAPSHOT_CALL, BoundedDomain, Bounds
from service.hypervisor.guest import Guest
from service.model.window import ThawOutcome
from tests.fakes import FakeDisk, FakeDomain, libvirt_error
from tests.fakes.libvirt_errors import agent_busy

libvirt: Any = _libvirt
SHORT = Bounds(read_s=0.1, query_s=0.1, agent_margin_s=-0.9, snapshot_s=0.1, block_job_s=0.1)
THAW = "guest-fsfreeze-thaw"


class Subject:
    def __init__(self, folder: Path) -> None:
        self.domain = FakeDomain("db1", [FakeDisk("vda", folder / "vda.qcow2")])
        self.hangs = 0
        self.helpers = HelperThreads()
        self.guest = Guest(BoundedDomain(self.domain, SHORT, self._hung, self.helpers), "fake:///", self.helpers)
        self.gates: list[threading.Event] = []

    def hang(self, call: str) -> threading.Event:
        self.gates.append(self.domain.hang_next(call))
        return self.gates[-1]

    def _hung(self) -> None:
        self.hangs += 1


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    built = Subject(tmp_path)
    yield built
    for gate in built.gates:
        gate.set()


CALLS: dict[str, tuple[str, Callable[[Guest], object]]] = {
    "virDomainGetState": ("state", Guest.state),
    "virDomainGetXMLDesc": ("xml", Guest.sources),
    "virDomainIsPersistent": ("is_persistent", Guest.is_persistent),
    "virDomainGetBlockInfo": ("block_capacity", lambda guest: guest.capacity("vda")),
    "virDomainGetBlockJobInfo": ("block_job", lambda guest: guest.block_job("vda")),
    "virDomainGetJobInfo": ("job_type", Guest.running_libvirt_job),
    "virDomainBlockCommit": ("block_commit_active", lambda guest: guest.start_merge("vda")),
    "virDomainBlockJobAbort": ("block_pivot", lambda guest: guest.pivot("vda")),
    "guest-ping": ("guest-ping", lambda guest: guest.agent("guest-ping", timeout_ms=1)),
    "guest-fsfreeze-freeze": ("guest-fsfreeze-freeze", lambda guest: guest.freeze(None, 1)),
}


@pytest.mark.parametrize(("call", "fake", "ask"), [(call, *rest) for call, rest in CALLS.items()], ids=CALLS.keys())
def test_every_call_that_hangs_ends_with_its_name(subject: Subject, call: str, fake: str, ask: Callable[[Guest], object]) -> None:
    subject.hang(fake)
    began = time.monotonic()
    with pytest.raises(LibvirtCallTimedOut) as caught:
        ask(subject.guest)
    assert time.monotonic() - began < 20
    assert (caught.value.facts["call"], caught.value.facts["domain"]) == (call, "db1")
    assert caught.value.facts["timeout_ms"] == pytest.approx(100)
    assert subject.hangs == 1


@pytest.mark.parametrize("ask", [Guest.filesystems, Guest.disks_in_guest], ids=["filesystems", "disks"])
def test_a_guest_that_hangs_in_reading_its_disks_is_given_up_with_a_limit_inside_libvirt_too(ask: Callable[[Guest], object]) -> None:
    """Calls in which libvirt asks the agent by itself have no limit, and would keep the agent from the thaw."""
    domain = FakeDomain("db2", [])
    domain.agent.answers = False
    with pytest.raises(AgentNotAnswering) as caught:
        ask(Guest(domain, "fake:///"))
    assert caught.value.facts["timeout_ms"] > 0


def test_hung_questions_about_a_domain_do_not_stand_in_the_way_of_its_thaw(subject: Subject) -> None:
    subject.guest.freeze(None, 1_000)
    for _ in range(6):
        subject.hang("state")
    for _ in range(6):
        with pytest.raises(LibvirtCallTimedOut):
            subject.guest.state()
    assert subject.guest.thaw(1_000) == 1
    assert subject.domain.log.count("state") == 4, "more and more threads hang in one domain"
    assert subject.hangs == 4, "a call that was not begun says nothing about the connection"


def test_a_thaw_that_hangs_is_given_up_and_sent_again_until_it_is_answered(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.freeze.window.THAW_TIMEOUT_MS", 1)
    subject.guest.freeze(None, 1_000)
    subject.hang(THAW)
    subject.hang(THAW)
    reply = thaw_until_answered(subject.guest, 1, patience_s=20)
    assert (reply.outcome, reply.attempts) == (ThawOutcome.completed, 3)
    assert not subject.domain.agent.frozen


def test_two_threads_use_one_guest_and_the_hung_one_does_not_stop_the_other(subject: Subject) -> None:
    gate = subject.hang("snapshot_create")
    take = subject.guest.prepare_snapshot({})
    subject.guest.freeze(None, 1_000)
    ended: list[str] = []

    def take_it() -> None:
        with pytest.raises(LibvirtCallTimedOut):
            take()
        ended.append("given up")

    snapshot = threading.Thread(target=take_it)
    snapshot.start()
    assert subject.guest.thaw(1_000) == 1
    snapshot.join(5)
    gate.set()
    assert ended == ["given up"]


def test_disks_are_not_settled_while_a_snapshot_that_was_given_up_may_still_move_them(subject: Subject, tmp_path: Path) -> None:
    overlay = tmp_path / "new.qcow2"
    overlay.touch()
    take = subject.guest.prepare_snapshot({"vda": str(overlay)})
    gate = subject.hang("snapshot_create")
    with pytest.raises(LibvirtCallTimedOut):
        take()
    with pytest.raises(LibvirtCallTimedOut) as hung:
        subject.guest.settled_sources()
    assert (hung.value.facts["call"], hung.value.facts["timeout_ms"]) == (SNAPSHOT_CALL, 0)
    gate.set()
    deadline = time.monotonic() + 5
    while subject.helpers.left_behind() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert subject.guest.settled_sources() == {"vda": str(overlay)}


# --- the agent in other hands ---------------------------------------------------------------------


def test_a_free_agent_of_a_thawed_guest_may_be_frozen(subject: Subject) -> None:
    subject.guest.require_idle_agent(within_ms=1_000)


def test_a_guest_that_is_frozen_already_is_seen_last_thing_before_the_freeze(subject: Subject) -> None:
    subject.domain.agent.freeze_by_somebody_else()
    with pytest.raises(GuestAlreadyFrozen):
        subject.guest.require_idle_agent(within_ms=1_000)


def test_an_agent_in_other_hands_is_seen_within_the_given_time_and_not_after_30_s(subject: Subject) -> None:
    subject.hang("guest-fsfreeze-status")
    began = time.monotonic()
    with pytest.raises(AgentBusy) as busy:
        subject.guest.require_idle_agent(within_ms=50)
    assert (busy.value.facts["domain"], busy.value.facts["timeout_ms"]) == ("db1", 50)
    assert time.monotonic() - began < 20


def test_what_libvirt_says_of_the_holder_is_kept(subject: Subject) -> None:
    subject.domain.fail_next("guest-ping", agent_busy())
    with pytest.raises(AgentBusy) as caught:
        subject.guest.ping()
    assert caught.value.facts["held_by"] == "agent=remoteDispatch"


@pytest.mark.parametrize(
    ("holder", "meaning"),
    [("agent=remoteDispatchDomainFsfreeze", AgentBusy), ("monitor=remoteDispatchDomainBackupBegin", DomainBusy)],
)
def test_a_lock_that_keeps_a_call_waiting_names_its_holder(subject: Subject, holder: str, meaning: type[Exception]) -> None:
    text = f"Timed out during operation: cannot acquire state change lock (held by {holder})"
    subject.domain.fail_next("block_capacity", libvirt_error(libvirt.VIR_ERR_OPERATION_TIMEOUT, text))
    with pytest.raises(meaning, match=holder):
        subject.guest.capacity("vda")
