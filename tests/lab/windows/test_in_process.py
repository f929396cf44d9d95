"""Without QEMU the simulated agent raises what libvirt would."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import libvirt
import pytest

from service.hypervisor.guest import Guest
from tests.fakes.dialect import Dialect
from tests.fakes.domain import FakeDisk
from tests.lab.windows.agent import WindowsAgent
from tests.lab.windows.clock import ManualClock, ScaledClock
from tests.lab.windows.domain import WindowsDomain
from tests.lab.windows.in_process import BLOCK, AgentChannel
from tests.lab.windows.scenario import load

pytestmark = pytest.mark.windows


def _channel(scenario: str, changes: Mapping[str, Any] | None = None, *, scale: float | None = None) -> AgentChannel:
    clock = ManualClock() if scale is None else ScaledClock(scale)
    return AgentChannel(WindowsAgent(load(scenario, changes), clock=clock))


def _ask(channel: AgentChannel, command: str, timeout_s: int = 10) -> Any:
    return json.loads(channel.agent_command(json.dumps({"execute": command}), timeout_s))["return"]


def _refused(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(libvirt.libvirtError) as raised:
        call()
    code, message = raised.value.get_error_code(), raised.value.get_error_message()
    assert code is not None
    assert message is not None
    return code, message


def test_an_error_of_the_agent_comes_in_libvirt_s_words_with_the_text_after_the_command(dialect: Dialect) -> None:
    code, words = {
        Dialect.libvirt_9_0: (libvirt.VIR_ERR_INTERNAL_ERROR, "internal error"),
        Dialect.libvirt_11_3: (113, "guest agent command failed"),
    }[dialect]
    channel = _channel("healthy-2022")
    assert _ask(channel, "guest-fsfreeze-freeze") == 2
    channel.agent.clock.sleep(11)
    assert _refused(lambda: _ask(channel, "guest-fsfreeze-thaw")) == (
        code,
        f"{words}: unable to execute QEMU agent command 'guest-fsfreeze-thaw': "
        "couldn't hold writes: fsfreeze is limited up to 10 seconds: ",
    )


def test_a_freeze_that_takes_too_long_is_a_lost_answer_and_happens_all_the_same(dialect: Dialect) -> None:
    channel = _channel("orphan-freeze")
    lost = {Dialect.libvirt_9_0: libvirt.VIR_ERR_AGENT_UNRESPONSIVE, Dialect.libvirt_11_3: 112}[dialect]
    assert _refused(lambda: _ask(channel, "guest-fsfreeze-freeze", 1))[0] == lost
    # Two syncs of 5 s are in vain while the agent is still freezing, then it listens again.
    assert _refused(lambda: _ask(channel, "guest-fsfreeze-thaw", 5))[0] == libvirt.VIR_ERR_AGENT_UNRESPONSIVE
    assert channel.agent.clock.now() == pytest.approx(11, abs=0.1)
    assert _ask(channel, "guest-fsfreeze-thaw", 5) == 2
    assert channel.agent.sessions[0].ended_by == "thaw"
    assert channel.agent.commands == ["guest-sync", "guest-fsfreeze-freeze", *["guest-sync"] * 3, "guest-fsfreeze-thaw"]


def test_ask_leaves_it_to_the_caller_what_silence_means() -> None:
    channel = _channel("freeze-slow")
    freeze = '{"execute": "guest-fsfreeze-freeze"}'
    assert channel.ask(freeze, 1.0) is None
    assert channel.ask('{"execute": "guest-ping"}', BLOCK) == '{"return": {}}\n'
    assert channel.agent.says_frozen()


def test_a_second_caller_waits_for_the_agent_job_and_gives_up_after_30_s() -> None:
    channel = _channel("freeze-slow", {"freeze": [{"delay_s": 40.0}]}, scale=100)
    first = threading.Thread(target=_ask, args=(channel, "guest-fsfreeze-freeze", 60))
    first.start()
    time.sleep(0.02)
    assert _refused(lambda: _ask(channel, "guest-ping"))[0] == libvirt.VIR_ERR_OPERATION_TIMEOUT
    first.join()
    assert _ask(channel, "guest-fsfreeze-status") == "frozen"


def test_time_can_pass_faster_than_real() -> None:
    channel = _channel("healthy-2022", scale=200)
    began = time.monotonic()
    _ask(channel, "guest-fsfreeze-freeze")
    channel.agent.clock.sleep(10.5)
    assert "limited up to 10 seconds" in _refused(lambda: _ask(channel, "guest-fsfreeze-thaw"))[1]
    assert time.monotonic() - began < 2


def _domain(tmp_path: Path, scenario: str) -> tuple[WindowsDomain, Guest]:
    domain = WindowsDomain("win1", [FakeDisk("vda", tmp_path / "vda.qcow2"), FakeDisk("vdb", tmp_path / "vdb.qcow2")], load(scenario))
    return domain, Guest(domain, "fake:///")


def test_a_domain_stands_behind_the_service_s_own_guest(tmp_path: Path) -> None:
    domain, guest = _domain(tmp_path, "healthy-2022")
    assert [(fs.mountpoint, fs.disks) for fs in guest.filesystems()] == [
        ("System Reserved", ("vda",)),
        ("C:\\", ("vda",)),
        ("D:\\", ("vdb",)),
    ]
    assert guest.freeze(None, 60_000) == 3
    assert guest.is_frozen()
    _take_snapshot(guest, tmp_path)
    assert guest.thaw(5_000) == 3
    assert domain.points[-1].frozen == {"vda", "vdb"}
    assert b"SqlServerWriter" in guest.execute("vssadmin.exe", ["list", "writers"], budget_ms=5_000).output


def test_a_point_in_time_after_volsnap_let_go_shows_that_nothing_was_held(tmp_path: Path) -> None:
    domain, guest = _domain(tmp_path, "hold-lost")
    guest.freeze(None, 60_000)
    assert guest.is_frozen()
    _take_snapshot(guest, tmp_path)
    assert domain.points[-1].frozen == frozenset()


def _take_snapshot(guest: Guest, folder: Path) -> None:
    overlays = {target: str(folder / f"{target}.overlay") for target in ("vda", "vdb")}
    for path in overlays.values():
        Path(path).touch()
    guest.prepare_snapshot(overlays)()
