"""The lab can be believed: what it says about a guest is what libvirt did to it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.lab import daemon
from tests.lab.daemon import Daemon, uri
from tests.lab.disks import chain, needs_recovery, sequences
from tests.lab.firmware import VARIABLES_BYTES
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions, Odd
from tests.lab.overlays import take_snapshot
from tests.lab.places import LabError

# A guest on a busy two-core machine without KVM is late now and then; a stall of this length is not an accident.
_A_REAL_STALL_MS = 20.0


def _long(stalls: list[Any]) -> list[Any]:
    return [stall for stall in stalls if stall.ms > _A_REAL_STALL_MS]


def test_the_agent_answers_a_few_seconds_after_the_start(make_guest: MakeGuest) -> None:
    started = time.monotonic()
    make_guest(GuestOptions()).start().wait_agent()
    assert time.monotonic() - started < 60  # 3 s on an idle machine


def test_a_freeze_is_one_stall_about_as_long_as_the_freeze(shared_guest: LabGuest) -> None:
    mark = shared_guest.mark()
    sent = time.monotonic()
    assert shared_guest.domain.fsFreeze() == 1
    time.sleep(0.5)
    assert shared_guest.freeze_status() == "frozen"
    assert shared_guest.domain.fsThaw() == 1
    window_ms = (time.monotonic() - sent) * 1000
    stalls = _long(shared_guest.stalls(mark))
    assert [stall.mount for stall in stalls] == ["/data"]
    assert 500 <= stalls[0].ms <= window_ms + 1


def test_an_unfrozen_guest_shows_that_nothing_held_it(shared_guest: LabGuest) -> None:
    mark = shared_guest.mark()
    shared_guest.console.wait_heartbeat(60)
    beat = next(beat for beat in shared_guest.heartbeats(mark) if beat.mount == "/data")
    assert beat.writes > 50
    assert shared_guest.freeze_status() == "thawed"


def test_a_late_fdatasync_is_a_stall_though_no_write_is_late(make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(meter={"sync_every": 16})).start_and_wait()
    guest.console.wait_heartbeat(60)
    mark = guest.mark()
    # A disk so slow that the blocks of one fdatasync take a second; a write ends in the cache of the guest.
    guest.domain.setBlockIoTune("vda", {"total_bytes_sec": 64_000}, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    guest.wait_serial(r"^STALL .* ms=\d{3,}.* call=fdatasync$", 60, since=mark)
    guest.domain.setBlockIoTune("vda", {"total_bytes_sec": 0}, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    longest = max(guest.stalls(mark), key=lambda stall: stall.ms)
    assert (longest.call, longest.mount) == ("fdatasync", "/data")
    assert longest.ms == max(beat.max_sync_ms for beat in guest.heartbeats(mark))


def test_a_guest_that_is_reset_in_the_middle_of_a_line_is_seen_to_be_ready_again(make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(meter=None)).start_and_wait()
    mark = guest.mark()
    guest.exec("/bin/sh", "-c", "printf 'METER mount=/da' > /dev/console")
    guest.wait_serial("^METER mount=/da$", 20, since=mark)
    guest.domain.reset(0)
    guest.wait_serial("^LAB ready", 60, since=mark)


def test_a_program_runs_in_the_guest_and_its_failure_is_told(shared_guest: LabGuest) -> None:
    assert shared_guest.exec("/bin/echo", "hello") == "hello\n"
    assert shared_guest.exec("/bin/sync") == ""
    with pytest.raises(LabError, match="ended in the guest with 3"):
        shared_guest.exec("/bin/sh", "-c", "exit 3")


def test_libvirt_knows_which_disk_a_filesystem_is_on(shared_guest: LabGuest) -> None:
    assert shared_guest.domain.fsInfo() == [("/data", "vda", "ext4", ["vda"])]


def test_a_snapshot_of_a_frozen_guest_needs_no_recovery(lab_guest: LabGuest, tmp_path: Path) -> None:
    lab_guest.domain.fsFreeze()
    taken = take_snapshot(lab_guest)
    lab_guest.domain.fsThaw()
    assert not needs_recovery(taken["vda"], tmp_path)
    assert needs_recovery(lab_guest.active_sources()["vda"], tmp_path)
    assert chain(lab_guest.active_sources()["vda"])[1] == taken["vda"]


def test_a_snapshot_of_an_unfrozen_guest_needs_recovery(lab_guest: LabGuest, tmp_path: Path) -> None:
    assert needs_recovery(take_snapshot(lab_guest)["vda"], tmp_path)


def test_a_shut_off_domain_is_snapshotted_too(lab_guest: LabGuest, tmp_path: Path) -> None:
    lab_guest.shutdown()
    taken = take_snapshot(lab_guest)
    assert not needs_recovery(taken["vda"], tmp_path)
    assert lab_guest.active_sources()["vda"] != taken["vda"]
    lab_guest.start_and_wait()


def test_no_acknowledged_write_is_missing_from_a_frozen_snapshot(make_guest: MakeGuest, tmp_path: Path) -> None:
    guest = make_guest(GuestOptions(meter={"sync_every": 20})).start_and_wait()
    guest.console.wait_heartbeat(60)
    guest.domain.fsFreeze()
    acknowledged = guest.heartbeats()[-1].acknowledged
    taken = take_snapshot(guest)
    guest.domain.fsThaw()
    found = sequences(taken["vda"], tmp_path)
    assert found[-1] >= acknowledged > 0
    newest = [number for number in found if number > 0]
    assert newest == list(range(newest[0], newest[-1] + 1))


def test_every_disk_has_a_meter_and_destroy_leaves_no_file(make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(disks=3)).start_and_wait()
    guest.console.wait(r"^METER mount=/data-vdb", 20)
    guest.console.wait(r"^METER mount=/data-vdc", 20)
    mark = guest.mark()
    assert guest.domain.fsFreeze() == 3
    time.sleep(0.2)
    guest.domain.fsThaw()
    assert {stall.mount for stall in _long(guest.stalls(mark))} == {"/data", "/data-vdb", "/data-vdc"}
    take_snapshot(guest)
    guest.define()
    assert sorted(path.name for path in guest.folder.iterdir()) == ["vda.qcow2", "vdb.qcow2", "vdc.qcow2"]


def test_odd_disks_are_part_of_the_domain(make_guest: MakeGuest) -> None:
    odd = (Odd.CDROM, Odd.EMPTY_CDROM, Odd.READONLY, Odd.RAW_FILE)
    guest = make_guest(GuestOptions(odd_disks=odd)).start_and_wait()
    assert set(guest.active_sources()) == {"vda", "hda", "vdb", "vdc"}
    assert "/data-vdb ext4 ro" in guest.exec("/bin/cat", "/proc/mounts")


def test_a_guest_keeps_the_state_of_its_tpm_and_the_variables_of_its_firmware_beside_its_disks(make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(tpm=True, nvram=True)).start_and_wait()
    state = guest.tpm_state
    assert guest.nvram.stat().st_size == VARIABLES_BYTES
    assert [file.name for file in state.iterdir() if file.stat().st_size] == ["tpm2-00.permall"]
    guest.destroy()
    assert not state.exists()
    assert not guest.nvram.exists()


@pytest.mark.parametrize("hook", ["ok", "swallow"])
def test_a_hook_that_reports_no_failure_lets_the_guest_freeze(make_guest: MakeGuest, hook: Any) -> None:
    guest = make_guest(GuestOptions(hook=hook)).start_and_wait()
    assert guest.domain.fsFreeze() == 1
    assert guest.domain.fsThaw() == 1


def test_a_hook_that_fails_on_freeze_keeps_the_guest_thawed(make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(hook="fail")).start_and_wait()
    with pytest.raises(libvirt.libvirtError, match=r"hook(: exit| has failed with) status 3"):
        guest.domain.fsFreeze()
    assert guest.freeze_status() == "thawed"


def test_a_hook_that_fails_on_thaw_gives_an_error_though_the_guest_is_thawed(make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(hook="fail_thaw")).start_and_wait()
    guest.domain.fsFreeze()
    with pytest.raises(libvirt.libvirtError, match=r"hook(: exit| has failed with) status 3"):
        guest.domain.fsThaw()
    assert guest.freeze_status() == "thawed"


def test_agent_commands_can_be_blocked(make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(agent_args=("--block-rpcs=guest-exec,guest-fsfreeze-freeze",))).start_and_wait()
    commands = {entry["name"]: entry["enabled"] for entry in guest.agent({"execute": "guest-info"})["supported_commands"]}
    assert not commands.get("guest-exec", False)
    assert not commands.get("guest-fsfreeze-freeze", False)


def test_a_loop_mount_is_seen_in_the_guest(make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(loop_mount=True)).start_and_wait()
    assert "/data-loop" in {filesystem[0] for filesystem in guest.domain.fsInfo()}


def test_a_program_on_the_host_can_be_the_agent(make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(agent="relay")).start_and_wait()
    with socket.socket(socket.AF_UNIX) as relay:
        relay.connect(str(guest.relay_socket))
        threading.Thread(target=_answer_everything, args=(relay,), daemon=True).start()
        # The guest is ready before it opens the agent's port.
        guest.wait_agent()
        assert guest.agent({"execute": "guest-fsfreeze-status"}) == "from the host"
        relay.shutdown(socket.SHUT_RDWR)


def _answer_everything(relay: socket.socket) -> None:
    for line in relay.makefile("rb"):
        asked = json.loads(line.strip(b"\xff"))
        answer = asked["arguments"]["id"] if asked["execute"].startswith("guest-sync") else "from the host"
        relay.sendall(json.dumps({"return": answer}).encode() + b"\n")


def test_a_guest_without_an_agent_runs_all_the_same(make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(agent="none")).start_and_wait()
    assert not guest.agent_connected()


def test_the_power_button_shuts_down_cleanly(make_guest: MakeGuest, tmp_path: Path) -> None:
    guest = make_guest(GuestOptions(agent="none")).start_and_wait()
    guest.domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    guest.wait_off()
    assert not needs_recovery(guest.disks["vda"], tmp_path)


def test_a_slow_disk_is_slow(make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(iotune_bytes_sec=4_000_000)).start_and_wait()
    began = time.monotonic()
    guest.exec("/bin/sh", "-c", "dd if=/dev/zero of=/data/dirty bs=1M count=8 conv=fsync")
    assert time.monotonic() - began > 1.5


def test_the_daemon_stays_while_another_process_uses_it(lab: None) -> None:
    code = "from tests.lab.daemon import Daemon; daemon = Daemon(); daemon.ensure(); daemon.stop()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert libvirt.open(uri()).isAlive()


def test_two_users_in_one_process_share_the_daemon(lab: None) -> None:
    second = Daemon()
    second.ensure()
    second.stop()
    assert libvirt.open(uri()).isAlive()


def test_a_virtlogd_of_the_lab_that_nobody_can_reach_is_replaced(make_guest: MakeGuest) -> None:
    """What a run that was killed may leave. Only where the daemons are the lab's own."""
    if not daemon.own_processes("virtlogd"):
        return
    stale = daemon.own_processes("virtlogd")
    # Its reaper is killed, and its socket is gone.
    os.kill(stale[0], signal.SIGKILL)
    Path(daemon.VIRTLOGD_SOCKET).unlink()
    user = Daemon()
    user.ensure()
    user.stop()
    assert not set(stale) & set(daemon.own_processes("virtlogd"))
    make_guest(GuestOptions()).start_and_wait()
