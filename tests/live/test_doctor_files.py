"""`doctor` on a real host: what would keep libvirt and QEMU from the overlays is said before there is any job."""

import subprocess
import sys

import pytest

from tests.lab.daemon import uri
from tests.lab.fixtures import MakeGuest
from tests.lab.options import GuestOptions
from tests.live import odd_hosts
from tests.live.odd_hosts import OddHost
from tests.live.test_preflight_and_job import service_of

pytestmark = pytest.mark.live

FOUND = [
    (odd_hosts.folder_of_root, "QEMU's user"),
    (odd_hosts.folder_is_a_file, "overlays"),
    (odd_hosts.folder_is_read_only, "files"),
    (odd_hosts.no_qemu_img, "qemu-img"),
    (odd_hosts.qemu_img_that_fails, "qemu-img"),
    (odd_hosts.other_mounts, "libvirt's files"),
]


@pytest.mark.parametrize(("odd", "subject"), FOUND, ids=[case[0].__name__ for case in FOUND])
def test_what_a_job_would_be_refused_for_is_found(
    make_guest: MakeGuest, tmp_path_factory: pytest.TempPathFactory, odd: OddHost, subject: str
) -> None:
    guest = make_guest(GuestOptions()).define()

    with odd(guest) as settings:
        service = service_of(tmp_path_factory.mktemp("service"), settings)
        command = [*service.inside, sys.executable, "-m", "service.cli", "doctor"]
        told = subprocess.run(command, env=service.environment, capture_output=True, text=True, check=False)

    failed = [line for line in told.stdout.splitlines() if line.startswith("FAIL")]
    assert told.returncode == 1
    assert [line for line in failed if subject in line], told.stdout
    assert not list(guest.folder.rglob(".stillpoint-doctor-*"))


def test_a_sound_host_is_well(make_guest: MakeGuest, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = odd_hosts.in_a_folder(make_guest(GuestOptions()).define())
    service = service_of(tmp_path_factory.mktemp("service"), {"overlay_dir": str(folder)})

    told = subprocess.run(
        [sys.executable, "-m", "service.cli", "doctor"], env=service.environment, capture_output=True, text=True, check=False
    )

    assert told.returncode == 0, told.stdout
    assert uri() in told.stdout
    assert list(folder.iterdir()) == []
