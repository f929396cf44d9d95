"""What is read of a domain and its guest, and that a guest which tells little or nonsense costs only knowledge."""

from pathlib import Path

import pytest

from service.freeze.survey import DOMAIN_JOB, as_document, begin, hook_path_of, hook_state, seen_from_outside, survey_of
from service.hypervisor.guest import Guest
from service.model.inventory import DomainState, OsFamily
from service.model.verdict import HookState
from tests.fakes import FakeDisk, FakeDomain, agent_silent
from tests.fakes.agent import HONEST_HOOK, STOCK_HOOK


@pytest.fixture
def domain(tmp_path: Path) -> FakeDomain:
    return FakeDomain("db1", [FakeDisk("vda", tmp_path / "vda.qcow2")])


@pytest.fixture
def guest(domain: FakeDomain) -> Guest:
    return Guest(domain, "fake:///")


def test_a_running_guest_tells_everything(guest: Guest) -> None:
    found = survey_of(guest)
    assert (found.domain, found.state, found.busy, found.hook) == ("db1", DomainState.running, {}, HookState.absent)
    assert (found.agent.version, found.agent.frozen, found.agent.fault, found.agent.os_family) == ("7.2.22", False, None, OsFamily.linux)
    assert [fs.mountpoint for fs in found.filesystems or []] == ["/data"]
    assert found.linux is not None
    assert found.linux.uptime_s == 3600.0


def test_loop_and_network_mounts_are_found(domain: FakeDomain, guest: Guest) -> None:
    domain.agent.extra_mounts = (
        "/dev/loop0 /mnt/image ext4 rw 0 0",
        "/dev/loop1 /snap/core squashfs ro 0 0",
        "server:/export /home nfs4 rw 0 0",
        "tmpfs /run tmpfs rw 0 0",
    )
    linux = survey_of(guest).linux
    assert linux is not None
    assert (linux.loop_mounts, linux.network_mounts) == (("/mnt/image",), ("/home",))


@pytest.mark.parametrize(
    ("text", "scripts", "state"),
    [
        (STOCK_HOOK, ("10-db",), HookState.swallowing),
        (HONEST_HOOK, ("10-db",), HookState.truthful),
        (HONEST_HOOK, (), HookState.absent),
        ("#!/bin/sh\nexec /opt/quiesce $1\n", (), HookState.unknown),
    ],
)
def test_the_hook_of_the_guest_is_read_and_judged(
    domain: FakeDomain, guest: Guest, text: str, scripts: tuple[str, ...], state: HookState
) -> None:
    domain.agent.hook, domain.agent.hook_text, domain.agent.hook_scripts = "ok", text, scripts
    assert survey_of(guest).hook is state


def test_a_hook_that_cannot_be_read_is_not_inspected(domain: FakeDomain, guest: Guest) -> None:
    domain.agent.hook = "ok"
    domain.when_next("guest-exec", lambda: None)
    domain.fail_next("guest-exec", agent_silent())
    assert survey_of(guest).hook is HookState.not_inspected


@pytest.mark.parametrize(
    ("command_line", "config", "path"),
    [
        (["qemu-ga"], [], None),
        (["qemu-ga", "-F"], [], "/etc/qemu/fsfreeze-hook"),
        (["qemu-ga", "--fsfreeze-hook"], [], "/etc/qemu/fsfreeze-hook"),
        (["qemu-ga", "-F/opt/hook"], [], "/opt/hook"),
        (["qemu-ga", "--fsfreeze-hook=/opt/hook"], [], "/opt/hook"),
        (["qemu-ga"], ["[general]", "fsfreeze-hook = /srv/hook"], "/srv/hook"),
        (["qemu-ga", "-F"], ["fsfreeze-hook=/srv/hook"], "/etc/qemu/fsfreeze-hook"),
        ([], [], None),
    ],
)
def test_which_hook_the_agent_runs(command_line: list[str], config: list[str], path: str | None) -> None:
    assert hook_path_of(command_line, config) == path


def test_the_declaration_of_a_hook_needs_a_script_behind_it() -> None:
    assert hook_state("# stillpoint: reports-failures\n", has_scripts=False) is HookState.absent


def test_a_shut_off_domain_is_not_asked_for_its_guest(domain: FakeDomain, guest: Guest) -> None:
    domain.shut_off()
    found = survey_of(guest)
    assert (found.state, found.shut_off_cleanly, found.filesystems) == (DomainState.shut_off, True, None)
    assert not [call for call in domain.log if call.startswith("guest-")]


def test_a_frozen_guest_is_not_asked_further(domain: FakeDomain, guest: Guest) -> None:
    domain.agent.freeze_by_somebody_else()
    found = survey_of(guest)
    assert (found.agent.frozen, found.filesystems, found.linux) == (True, None, None)
    assert "guest-exec" not in domain.log


def test_a_silent_agent_is_a_fact(domain: FakeDomain, guest: Guest) -> None:
    domain.agent.answers = False
    found = survey_of(guest)
    assert found.agent.fault is not None
    assert found.agent.fault.code == "agent_not_answering"
    assert as_document(found)["agent"]["fault"] == "agent_not_answering"


def test_jobs_of_libvirt_are_named(domain: FakeDomain, guest: Guest) -> None:
    domain.block_jobs["vda"] = {"type": 4, "cur": 1, "end": 2}
    domain.domain_job = 2
    assert survey_of(guest).busy == {"vda": "block job (active commit)", "": DOMAIN_JOB}


def test_of_an_operating_system_only_words_are_kept(domain: FakeDomain, guest: Guest) -> None:
    domain.agent.os = {"id": "debian", "version": {"nested": 1}, "pretty-name": 7}
    assert survey_of(guest).agent.os == {"id": "debian"}


def test_the_guest_reads_its_system_while_the_host_does_something_else(domain: FakeDomain, guest: Guest) -> None:
    under_way = begin(guest, seen_from_outside(guest))
    assert (domain.agent.executed, "guest-exec-status" in domain.log) == (["/bin/sh"], False)
    found = under_way.finish()
    assert (found.agent.runs_linux, found.devices is not None, domain.agent.executed) == (True, True, ["/bin/sh"])


def test_a_guest_whose_system_is_not_known_is_read_as_well(domain: FakeDomain, guest: Guest) -> None:
    domain.agent.blocked.add("guest-get-osinfo")
    found = survey_of(guest)
    assert (found.agent.runs_linux, found.agent.os_family, found.devices is not None) == (True, OsFamily.linux, True)


def test_a_listing_of_devices_that_fails_leaves_what_was_read_before_it(domain: FakeDomain, guest: Guest) -> None:
    real = domain.agent._shell
    domain.agent.programs["/bin/sh"] = lambda arguments: (0, real(arguments)[1].split(b"@devices")[0], b"")
    found = survey_of(guest)
    assert (found.hook, found.agent.runs_linux, found.devices) == (HookState.absent, True, None)


def test_the_system_is_not_read_by_halves(domain: FakeDomain, guest: Guest) -> None:
    """A program that failed proves no absence of a hook."""
    domain.agent.programs["/bin/sh"] = lambda _arguments: (1, b"@agent\nqemu-ga\n", b"")
    assert survey_of(guest).hook is HookState.not_inspected
