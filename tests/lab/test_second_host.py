"""A guest migrates to the second host while it runs, and nothing of that host stays."""

from pathlib import Path

import libvirt

from tests.lab.daemon import connect
from tests.lab.fixtures import MakeGuest
from tests.lab.options import GuestOptions
from tests.lab.second_host import migrate, second_host


def test_a_guest_migrates_live_and_goes_on_writing(make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(meter={"sync_every": 20})).start_and_wait()
    with second_host() as host:
        moved = migrate(guest, host)
        assert moved.isActive()
        assert moved.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        assert not guest.is_defined()
        assert host.connection.getHostname() != connect().getHostname()
        assert moved.fsFreeze() == 1
        assert moved.fsThaw() == 1
    assert str(host.folder) not in Path("/proc/self/mounts").read_text()
    assert not host.folder.exists()
