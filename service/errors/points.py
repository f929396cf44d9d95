"""What keeps a file from being a point in time: somebody else writes to it, or will."""

from service.errors.base import StillpointError


class ImageInUse(StillpointError):
    code = "image_in_use"
    title = "Somebody else writes to the image of a disk"
    detail_template = "{file}, which a disk of {domain} lies on, is open for writing in {holder}."
    remedy_template = (
        "Nothing was taken. End what writes to it (`fuser -v {file}`, `qemu-nbd --disconnect`, `virsh list`), or take the point of the "
        "domain that runs on it. Two domains that write to one image destroy it."
    )


class SavedStateWaits(StillpointError):
    code = "saved_state_waits"
    title = "The domain was saved, and goes on with its disks as they are"
    detail_template = (
        "{domain} has a managed save: its next start goes on with the saved memory and with the very files that its disks are on now, "
        "past any overlay, and what it had not written yet is in that memory."
    )
    remedy_template = (
        "Nothing was taken. Start it (`virsh start {domain}`) and take the point while it runs; or give the saved memory up: "
        "`virsh managedsave-remove {domain}`."
    )


class PointIsWritten(StillpointError):
    """The disks were switched, and the files below them are not still."""

    code = "point_is_written"
    title = "The disks were moved, but somebody else writes to the files below"
    detail_template = (
        "{file}, which should have become the recovery point of {domain}, is open for writing in {holder}. "
        "The disks are on their overlays: {overlays}. There is no recovery point."
    )
    remedy_template = (
        "Nothing was deleted. End what writes to {file}, then decide which of the two is true: with the domain shut off, "
        "`qemu-img commit OVERLAY` brings what lies in an overlay into the file below; before the domain is started, "
        "`virsh edit {domain}` names the files that its disks shall be on."
    )


class CheckpointsInTheWay(StillpointError):
    code = "checkpoints_in_the_way"
    title = "libvirt takes no snapshot of a domain that is shut off and has checkpoints"
    detail_template = "{domain} is shut off and has libvirt checkpoints of another backup tool: {checkpoints}."
    remedy_template = (
        "Nothing was taken. Take the point while the domain runs; or, where no backup tool needs them, delete the checkpoints "
        "while it runs: `virsh checkpoint-delete {domain} NAME`."
    )
