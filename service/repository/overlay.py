"""The overlay of an instant restore: an empty image on the host's storage, over an image of the repository that QEMU only reads."""

import os
from typing import Any

from service.errors import OutOfReachOfQemu
from service.repository import stored_chain
from service.repository.new_file import NewFile
from service.repository.qcow2_file import MAX_NAME_BYTES, Layout, Qcow2File
from service.repository.report import Report


def make_overlay(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step. Raises OutOfReachOfQemu, PointDamaged, PointIncomplete, TargetFull, StorageRefused. `chain`: what QEMU will read."""
    chain = stored_chain.chain(arguments["path"], arguments["folder"], arguments["file"])
    below = os.path.abspath(chain[0].path)  # noqa: PTH100 - a link in the path of the repository stays as the administrator made it
    if any(image.header.encryption for image in chain):
        raise OutOfReachOfQemu(path=below, reason="the image is encrypted, and QEMU is not given the key of the repository")
    if len(os.fsencode(below)) > MAX_NAME_BYTES:
        raise OutOfReachOfQemu(path=below, reason=f"a name in a qcow2 has at most {MAX_NAME_BYTES} bytes")
    new = NewFile.asked(arguments, needed_bytes=None)
    with new.opened() as descriptor:
        layout = Layout(arguments["virtual_size"], [], [], below)
        Qcow2File(descriptor, new.path, layout, new.explained, is_hashed=False).finish(report)
    return {"target": str(new.path), "backing": below, "chain": [str(image.path) for image in chain]}
