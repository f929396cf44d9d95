"""Preflight of the image files: who else writes to them, and what may do so later."""

from collections.abc import Iterator, Sequence

from service.errors import StillpointError
from service.model.check import Check, failed, passed, warned
from service.model.inventory import Disk


def checks(domain: str, taken: Sequence[Disk], fault: StillpointError | None, libvirt_snapshots: Sequence[str]) -> Iterator[Check]:
    """`fault`: why the files are not at rest; None: nothing is seen that writes to them."""
    if fault is not None:
        yield failed(fault.code, fault.detail, fault.remedy)
    else:
        yield passed("image_in_use", "Nothing else is seen to write to the images.")
    inside = {file: count for disk in taken if disk.image for file, count in disk.image.internal_snapshots.items()}
    if libvirt_snapshots:
        yield _kept_by_libvirt(domain, libvirt_snapshots)
    if inside:
        yield _inside_of_images(inside)
    if not libvirt_snapshots and not inside:
        yield passed("libvirt_snapshots", "libvirt keeps no snapshots of its own of this domain.")


def _kept_by_libvirt(domain: str, names: Sequence[str]) -> Check:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return warned(
        "libvirt_snapshots",
        f"libvirt keeps snapshots of its own: {shown}. Reverting to one or deleting one can rewrite or delete the files of recovery "
        "points: libvirt does not know of them.",
        f"Copy the recovery points elsewhere before `virsh snapshot-revert {domain}` or `virsh snapshot-delete {domain}`. "
        f"Where the snapshots are not needed, delete them before the first point: `virsh snapshot-list {domain} --tree`.",
    )


def _inside_of_images(inside: dict[str, int]) -> Check:
    shown = ", ".join(f"{file} ({count})" for file, count in inside.items())
    return warned(
        "libvirt_snapshots",
        f"Snapshots lie inside of images: {shown}. Reverting to one rewrites the file, and the recovery point with it.",
        "Do not apply one (`qemu-img snapshot -a`, `virsh snapshot-revert`) to a file that a recovery point names; "
        "`qemu-img snapshot -l` lists them.",
    )
