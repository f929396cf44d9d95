"""Real libvirt and real QEMU take the simulator for a Windows guest agent."""

import base64
import json
import subprocess
import sys
import time
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from tests.lab.guests import BOOT_TIMEOUT, LOST_ANSWER
from tests.lab.windows.fixtures import MakeWindowsGuest
from tests.lab.windows.guest import WindowsGuest
from tests.lab.windows.scenario import Hold, load

pytestmark = [pytest.mark.live, pytest.mark.windows]

# libvirt's codes for an agent's error, up to 11.1 and from 11.2 on.
_ANSWERED = (libvirt.VIR_ERR_INTERNAL_ERROR, 113)


def _agent_refuses(guest: WindowsGuest, command: str, **arguments: Any) -> str:
    with pytest.raises(libvirt.libvirtError) as raised:
        guest.guest.agent({"execute": command, "arguments": arguments})
    assert raised.value.get_error_code() in _ANSWERED
    return str(raised.value.get_error_message())


def test_libvirt_freezes_and_thaws_and_asks_what_it_is(windows_guest: WindowsGuest) -> None:
    domain, agent = windows_guest.domain, windows_guest.agent
    assert windows_guest.guest.agent({"execute": "guest-ping"}) == {}
    assert domain.guestInfo(libvirt.VIR_DOMAIN_GUEST_INFO_OS)["os.id"] == "mswindows"
    assert domain.fsFreeze() == 2
    assert agent.holds_writes()
    assert windows_guest.guest.freeze_status() == "frozen"
    assert "Command guest-exec has been disabled: the agent is in frozen state" in _agent_refuses(
        windows_guest, "guest-exec", path="vssadmin.exe"
    )
    with pytest.raises(libvirt.libvirtError, match="guest-get-fsinfo has been disabled"):
        domain.fsInfo()
    assert domain.fsThaw() == 2
    assert domain.fsThaw() == 0
    assert windows_guest.guest.freeze_status() == "thawed"
    (session,) = agent.sessions
    assert session.ended_by == "thaw"


def test_libvirt_finds_its_disks_under_the_volumes(windows_guest: WindowsGuest) -> None:
    reserved, system = windows_guest.agent.volumes
    assert sorted(windows_guest.domain.fsInfo()) == [
        ("C:\\", system.name, "NTFS", ["vda"]),
        ("System Reserved", reserved.name, "NTFS", ["vda"]),
    ]


def test_a_hold_that_windows_gave_up_is_an_error_of_libvirt_and_the_guest_is_thawed(windows_guest: WindowsGuest) -> None:
    # A Windows gives up after 10 s.
    agent = windows_guest.play(load("healthy-2022").model_copy(update={"hold": Hold(limit_s=0.5)}))
    windows_guest.domain.fsFreeze()
    while agent.holds_writes():
        time.sleep(0.05)
    assert windows_guest.guest.freeze_status() == "frozen"
    with pytest.raises(libvirt.libvirtError) as raised:
        windows_guest.domain.fsThaw()
    assert raised.value.get_error_code() in _ANSWERED
    assert str(raised.value.get_error_message()).endswith(
        "'guest-fsfreeze-thaw': couldn't hold writes: fsfreeze is limited up to 10 seconds: "
    )
    assert windows_guest.guest.freeze_status() == "thawed"


def test_a_freeze_beyond_the_timeout_of_libvirt_happens_all_the_same(windows_guest: WindowsGuest) -> None:
    agent = windows_guest.play("orphan-freeze")
    with pytest.raises(libvirt.libvirtError) as raised:
        libvirt_qemu.qemuAgentCommand(windows_guest.domain, '{"execute": "guest-fsfreeze-freeze"}', 1, 0)
    assert raised.value.get_error_code() in LOST_ANSWER
    while not agent.holds_writes():
        time.sleep(0.1)
    assert windows_guest.guest.freeze_status() == "frozen"
    assert windows_guest.domain.fsThaw() == 2


def test_the_writers_come_through_guest_exec_in_their_code_page(windows_guest: WindowsGuest) -> None:
    windows_guest.play("japanese-timed-out")
    windows_guest.domain.fsFreeze()
    windows_guest.domain.fsThaw()
    started = {"path": "vssadmin.exe", "arg": ["list", "writers"], "capture-output": True}
    pid = windows_guest.guest.agent({"execute": "guest-exec", "arguments": started})["pid"]
    asked = {"execute": "guest-exec-status", "arguments": {"pid": pid}}
    assert windows_guest.guest.agent(asked) == {"exited": False}
    text = base64.b64decode(windows_guest.guest.agent(asked)["out-data"]).decode("cp932")
    assert "   状態: [9] 失敗\r\n   最後のエラー: タイムアウト\r\n" in text
    assert "PID lld does not exist" in _agent_refuses(windows_guest, "guest-exec-status", pid=pid)


def test_an_agent_that_restarts_in_the_hold_is_silent_and_then_thawed(windows_guest: WindowsGuest) -> None:
    windows_guest.play("agent-restart")
    windows_guest.domain.fsFreeze()
    time.sleep(0.6)
    assert windows_guest.guest.freeze_status() == "thawed"
    assert windows_guest.domain.fsThaw() == 0


def test_several_disks_are_told_apart_and_a_process_of_its_own_can_be_the_agent(make_windows_guest: MakeWindowsGuest) -> None:
    guest = make_windows_guest(disks=3)
    guest.guest.start_and_wait()
    command = [sys.executable, "-m", "tests.lab.windows", "--guest", guest.name, "--scenario", "disks-without-serials"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
        try:
            guest.wait_agent(BOOT_TIMEOUT)
            targets = {mount: disks for mount, _, _, disks in guest.domain.fsInfo()}
            assert targets == {"System Reserved": ["vda"], "C:\\": ["vda"], "D:\\": ["vdb"], "E:\\": ["vdc"]}
            info = json.loads(libvirt_qemu.qemuAgentCommand(guest.domain, '{"execute": "guest-info"}', 5, 0))
            assert info["return"]["version"] == "107.0.1"
            guest.guest.power_off()
            assert agent.wait(10) == 0
        finally:
            agent.kill()
