"""Names of block nodes that libvirt chooses twice."""

from collections.abc import Callable

from service.errors import LibvirtCallFailed

NODE_NAME_TAKEN = "Duplicate nodes with node-name"
"""QEMU's own text, which is always English (QEMU, block.c)."""
NODE_NAME_TRIES = 8
"""Calls that are tried before the error counts. A killed call may have used one node name for each of its disks."""


def retry_node_names(snapshot: Callable[[], None]) -> None:
    """Take the snapshot, and try again if a node name is taken.

    A killed libvirtd continues to count the names of block nodes from its state file, so it may choose names that QEMU has already
    (seen with 9.0.0). Such a call fails before a disk is moved, and each call chooses new names.
    """
    for _ in range(NODE_NAME_TRIES):
        try:
            snapshot()
            return
        except LibvirtCallFailed as error:
            failed = error
            if NODE_NAME_TAKEN not in error.facts["message"]:
                break
    raise failed
