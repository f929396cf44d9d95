"""The files of a host: disk images, overlays, and what makes, labels and opens them."""

import errno

from service.errors.base import StillpointError

_REMEDIES = {
    errno.EACCES: "Let the service's user (root in the unit) reach it: `namei -l {path}` shows the rights of each folder on the way.",
    errno.EPERM: "Let the service's user (root in the unit) change it: `lsattr` and `namei -l {path}` show what forbids it.",
    errno.ENOSPC: "Free space there (`df -h {path}`, `df -i {path}`), or set STILLPOINT_OVERLAY_DIR to a folder that has it.",
    errno.EDQUOT: "Raise the quota there, or set STILLPOINT_OVERLAY_DIR to a folder that has space.",
    errno.EROFS: "Mount it for writing (`findmnt --target {path}`; `dmesg` says why it became read-only), or set STILLPOINT_OVERLAY_DIR.",
    errno.ENAMETOOLONG: "Set STILLPOINT_OVERLAY_DIR to a folder with a shorter path, or give the disk's image a shorter name.",
    errno.ENOTDIR: "A part of the path is a file: name a folder in STILLPOINT_OVERLAY_DIR.",
    errno.ENOENT: "Make it, or correct the setting or the definition that names it.",
    errno.ELOOP: "Links there point at each other: `namei {path}` shows them.",
    errno.ESTALE: "The NFS server has forgotten it: mount it anew.",
    errno.EIO: "The disk below reports errors: `dmesg` has them. Mend or replace it first.",
}
_OTHER_REMEDY = "Mend what the reason says about {path} on the host, then retry the job. Nothing was frozen or changed."


class _NamesAFile(StillpointError):
    """Facts: `path` and `reason`, and where the system gave it, `errno` (its name), which finds the remedy."""

    @property
    def remedy(self) -> str:
        number = getattr(errno, str(self.facts.get("errno")), 0)
        return _REMEDIES.get(number, self.remedy_template).format(**self.facts)


class OverlayPreparationFailed(_NamesAFile):
    code = "overlay_preparation_failed"
    title = "The overlays could not be made"
    detail_template = "{path}: {reason}."
    remedy_template = "Nothing was frozen or changed. Check the folder's rights and space on the host."


class StorageRefused(_NamesAFile):
    """Something of the host that the job needs before its window; the file that is meant is named."""

    code = "storage_refused"
    title = "The host refuses a file that the job needs"
    detail_template = "{what} {path} failed: {reason}."
    remedy_template = _OTHER_REMEDY


class DiskImageMissing(_NamesAFile):
    code = "disk_image_missing"
    title = "The image of a disk is not there"
    detail_template = "The image {path} of {domain}'s disk {disk} cannot be found: {reason}."
    remedy_template = "Put the image back where the definition of {domain} names it, or correct the definition (`virsh edit {domain}`)."

    @property
    def remedy(self) -> str:
        return self.remedy_template.format(**self.facts)


class DiskImageDeleted(StillpointError):
    """The guest writes on into a file that has no name any more, or not this one."""

    code = "disk_image_deleted"
    title = "A running guest writes into an image that was deleted"
    detail_template = "The image {path} of {domain}'s disk {disk} is not the file that its QEMU has open: {reason}."
    remedy_template = (
        "What the guest writes is lost when it stops. Save it while it runs: "
        "`virsh blockcopy {domain} {disk} /new/image.qcow2 --wait --pivot --transient-job`. "
        "Where nobody deleted it, the worker sees another file under this path than QEMU does: "
        "run it without a mount namespace or container that changes {path}."
    )


class QemuImgUnusable(StillpointError):
    code = "qemu_img_unusable"
    title = "qemu-img cannot be used"
    detail_template = "qemu-img, which makes the overlays, cannot be used: {reason}."
    remedy_template = "Install it on the host (`apt install qemu-utils`), and see that `qemu-img --version` works for the service's user."


class LibvirtSeesOtherFiles(StillpointError):
    code = "libvirt_sees_other_files"
    title = "libvirt does not see the files that the worker makes"
    detail_template = "The worker made {path}; {who} does not find it there: {reason}."
    remedy_template = (
        "Run the worker on the host of {uri}, where libvirt and QEMU run, and give it the same mounts: no private /tmp or home where the "
        "images lie (PrivateTmp, ProtectHome), in a container the same folders under the same paths. "
        "A folder that was mounted after libvirt was started may need a restart of libvirt."
    )


class QemuCannotOpen(StillpointError):
    code = "qemu_cannot_open_overlay"
    title = "QEMU may not open the overlays"
    detail_template = "QEMU runs as {user} and cannot open {path}: {reason}, at {at}."
    remedy_template = (
        "Let that user through: `setfacl --modify user:{uid}:x {at}` for a folder (`namei -l {path}` shows the rights of each), "
        "or set STILLPOINT_OVERLAY_DIR to a folder that it can enter."
    )


class HostOutOfDescriptors(StillpointError):
    """Nothing was frozen and nothing is left: the job goes back into the queue, and the attempt does not count."""

    code = "host_out_of_descriptors"
    title = "No file could be opened, because too many are open"
    detail_template = "{what}: {reason}."
    remedy_template = (
        "The job is tried again by itself. Raise the limit (LimitNOFILE of the unit, `fs.file-max` of the host), "
        "or end what holds the files."
    )
