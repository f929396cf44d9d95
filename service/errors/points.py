"""Why a file cannot be a point in time: another program writes to the file, or will write to the file."""

from service.errors.base import StillpointError


class ImageInUse(StillpointError):
    code = "image_in_use"
    title = "Another program writes to the image of a disk"
    detail_template = "{file}, the image of a disk of {domain}, is open for writing in {holder}."
    remedy_template = (
        "No snapshot was taken. End the program that writes to the image (`fuser -v {file}`, `qemu-nbd --disconnect`, `virsh list`), or "
        "snapshot the domain that runs on the image. Two domains that write to one image destroy the image."
    )


class SavedStateWaits(StillpointError):
    code = "saved_state_waits"
    title = "The domain has a managed save, which needs the disks as they are"
    detail_template = (
        "{domain} has a managed save. The saved memory holds data that is not on the disks yet, and the next start uses the files that "
        "the disks are on now, whatever overlay there is."
    )
    remedy_template = (
        "No snapshot was taken. Start the domain (`virsh start {domain}`) and take the snapshot while the domain runs. "
        "Or give up the saved memory: `virsh managedsave-remove {domain}`."
    )


class PointIsWritten(StillpointError):
    """The disks were switched, and another program writes to the files below them."""

    code = "point_is_written"
    title = "The disks were switched, but another program writes to the files below"
    detail_template = (
        "{file}, which should have become the recovery point of {domain}, is open for writing in {holder}. "
        "The disks are on their overlays: {overlays}. The job has no recovery point."
    )
    remedy_template = (
        "Nothing was deleted. End the program that writes to {file}. Then decide whether the data in the overlay is right or the data in "
        "the file below. While the domain is shut off, `qemu-img commit OVERLAY` merges an overlay into the file below. "
        "Before you start the domain, name the right files in its definition (`virsh edit {domain}`)."
    )


class ChainTooDeep(StillpointError):
    """Facts: `domain`, `disk`, `depth`: files below the active one, `limit`."""

    code = "chain_too_deep"
    title = "A disk has too many files below it for another snapshot"
    detail_template = "{domain}, {disk}: {depth} files are below the active one, and the limit is {limit}."
    remedy_template = (
        "No snapshot was taken, and the guest was not frozen. Remove old points of {domain}: `stillpoint remove --merge POINT...` merges "
        "their files while the guest runs. libvirt starts no domain whose chain is much longer."
    )


class CheckpointsInTheWay(StillpointError):
    code = "checkpoints_in_the_way"
    title = "libvirt cannot snapshot a domain that is shut off and has checkpoints"
    detail_template = "{domain} is shut off and has libvirt checkpoints of another backup tool: {checkpoints}."
    remedy_template = (
        "No snapshot was taken. Take the snapshot while the domain runs. If no backup tool needs the checkpoints, delete them "
        "while the domain runs: `virsh checkpoint-delete {domain} NAME`."
    )
