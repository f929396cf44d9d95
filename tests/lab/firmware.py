"""Firmware with variables, and a TPM: what a guest keeps in files of the host beside its disks."""

from pathlib import Path

from tests.lab.places import LabError, run_dir

VARIABLES = "nvram.fd"
VARIABLES_BYTES = 128 * 1024
_ERASED = b"\xff"
#: Debian's SeaBIOS: it runs from flash as UEFI does, and starts the lab's kernel sooner. It leaves the variables alone.
_PROGRAMS = (Path("/usr/share/seabios/bios-256k.bin"), Path("/usr/share/qemu/bios-256k.bin"))
_TPM_STATES = Path("/var/lib/libvirt/swtpm")


def program() -> Path:
    for path in _PROGRAMS:
        if path.exists():
            return path
    raise LabError("SeaBIOS is not installed; run scripts/install-host-packages")


def template() -> Path:
    """What libvirt copies for a guest that has no variables yet."""
    path = run_dir() / "nvram-template.fd"
    if not path.exists():
        path.write_bytes(_ERASED * VARIABLES_BYTES)
    return path


def tpm_state(domain_uuid: str) -> Path:
    """The folder with the state of the guest's TPM, under a system libvirtd."""
    return _TPM_STATES / domain_uuid / "tpm2"
