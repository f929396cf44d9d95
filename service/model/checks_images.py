"""Preflight of the image files: which other programs write to the files, or may write to them later."""

from collections.abc import Iterator, Sequence

from service.errors import StillpointError
from service.model.check import Check, failed, passed, warned
from service.model.inventory import Disk


def checks(domain: str, taken: Sequence[Disk], fault: StillpointError | None, libvirt_snapshots: Sequence[str]) -> Iterator[Check]:
    """`fault`: why the files are not at rest; None: no other program was seen to write to the files."""
    if fault is not None:
        yield failed(fault.code, fault.detail, fault.remedy)
    else:
        yield passed("image_in_use", "No other program was seen to write to the images.")
    inside = {file: count for disk in taken if disk.image for file, count in disk.image.internal_snapshots.items()}
    if libvirt_snapshots:
        yield _kept_by_libvirt(domain, libvirt_snapshots)
    if inside:
        yield _inside_of_images(inside)
    if not libvirt_snapshots and not inside:
        yield passed("libvirt_snapshots", "libvirt has no snapshots of its own of this domain.")


def _kept_by_libvirt(domain: str, names: Sequence[str]) -> Check:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return warned(
        "libvirt_snapshots",
        f"libvirt has snapshots of its own: {shown}. To revert to a snapshot or to delete a snapshot can change or delete the files of "
        "recovery points, because libvirt does not know the recovery points.",
        f"Copy the recovery points elsewhere before `virsh snapshot-revert {domain}` or `virsh snapshot-delete {domain}`. "
        f"If the snapshots are not needed, delete them before the first recovery point: `virsh snapshot-list {domain} --tree`.",
    )


def _inside_of_images(inside: dict[str, int]) -> Check:
    shown = ", ".join(f"{file} ({count})" for file, count in inside.items())
    return warned(
        "libvirt_snapshots",
        f"Images have internal snapshots: {shown}. To revert to a snapshot changes the file, and with the file the recovery point.",
        "Do not apply an internal snapshot (`qemu-img snapshot -a`, `virsh snapshot-revert`) to a file that a recovery point names. "
        "`qemu-img snapshot -l` lists the internal snapshots.",
    )
