"""The files of a host: disk images and overlays, and the programs that make, label and open them."""

import errno

from service.errors.base import StillpointError

_REMEDIES = {
    errno.EACCES: "Give the service's user (root in the unit) access to {path}. `namei -l {path}` shows the rights on the way.",
    errno.EPERM: "Let the service's user (root in the unit) change {path}. `lsattr` and `namei -l {path}` show the reason.",
    errno.ENOSPC: "Free space there (`df -h {path}`, `df -i {path}`), or set STILLPOINT_OVERLAY_DIR to a folder with enough space.",
    errno.EDQUOT: "Raise the quota there, or set STILLPOINT_OVERLAY_DIR to a folder with enough space.",
    errno.EROFS: (
        "Mount the filesystem for writing, or set STILLPOINT_OVERLAY_DIR to another folder. `findmnt --target {path}` shows the mount, "
        "and `dmesg` may say why the mount became read-only."
    ),
    errno.ENAMETOOLONG: "Set STILLPOINT_OVERLAY_DIR to a folder with a shorter path, or give the disk's image a shorter name.",
    errno.ENOTDIR: "A part of the path is a file. Name a folder in STILLPOINT_OVERLAY_DIR.",
    errno.ENOENT: "Make {path}, or correct the setting or the definition that names {path}.",
    errno.ELOOP: "Symbolic links there point at each other. `namei {path}` shows the links.",
    errno.ESTALE: "The NFS server does not know the file any more. Mount the share again.",
    errno.EIO: "The disk below reports errors, which `dmesg` shows. Repair or replace that disk first.",
}
_OTHER_REMEDY = "Solve the problem with {path} that the reason names, then retry the job. Nothing was frozen or changed."


class _NamesAFile(StillpointError):
    """Facts: `path`, `reason`, and `errno` if the system gave one. `errno` is the name of the error and selects the remedy."""

    @property
    def remedy(self) -> str:
        number = getattr(errno, str(self.facts.get("errno")), 0)
        return _REMEDIES.get(number, self.remedy_template).format(**self.facts)


class OverlayPreparationFailed(_NamesAFile):
    code = "overlay_preparation_failed"
    title = "The overlays could not be made"
    detail_template = "{path}: {reason}."
    remedy_template = "Nothing was frozen or changed. Check the rights and the free space of the folder on the host."


class StorageRefused(_NamesAFile):
    """The host refuses an operation on a file that the job needs before its freeze window."""

    code = "storage_refused"
    title = "The host refuses a file that the job needs"
    detail_template = "{what} {path} failed: {reason}."
    remedy_template = _OTHER_REMEDY


class DiskImageMissing(_NamesAFile):
    code = "disk_image_missing"
    title = "The image of a disk is missing"
    detail_template = "The image {path} of {domain}'s disk {disk} is missing: {reason}."
    remedy_template = "Put the image back where the definition of {domain} names it, or correct the definition (`virsh edit {domain}`)."

    @property
    def remedy(self) -> str:
        return self.remedy_template.format(**self.facts)


class DiskImageDeleted(StillpointError):
    """The guest writes to a file that was deleted, or that has another path now."""

    code = "disk_image_deleted"
    title = "A running guest writes into an image that was deleted"
    detail_template = "The image {path} of {domain}'s disk {disk} is not the file that its QEMU has open: {reason}."
    remedy_template = (
        "The data of the guest is lost when the guest stops. Save the data while the guest runs: "
        "`virsh blockcopy {domain} {disk} /new/image.qcow2 --wait --pivot --transient-job`. "
        "If nobody deleted the image, the worker and QEMU see different files at this path: "
        "run the worker without a mount namespace or container that changes {path}."
    )


class LibvirtBehindQemu(StillpointError):
    """libvirtd was killed after QEMU had switched a disk and before libvirt saved that.

    Facts: `domain`, `disk` (a target, or several), `libvirt_file`, which libvirt names, and `qemu_file`, which has the guest's writes.
    """

    code = "libvirt_behind_qemu"
    title = "libvirt names another file for a disk than QEMU writes to"
    detail_template = "{domain}'s disk {disk}: libvirt names {libvirt_file}, but the guest's writes are in {qemu_file}."
    remedy_template = (
        "Delete neither file. Do not destroy, save or migrate {domain} before this is corrected: the next start would use {libvirt_file}, "
        "without the writes in {qemu_file}. A restart of libvirtd does not help. 1. `virsh edit {domain}`: name {qemu_file} as the source "
        "of {disk}, with driver type qcow2. 2. `virsh shutdown {domain}`. 3. When the domain is off, `virsh start {domain}`. "
        "A way without a shutdown is in docs/reliability.md, section libvirt behind QEMU."
    )


class QemuImgUnusable(StillpointError):
    code = "qemu_img_unusable"
    title = "qemu-img cannot be used"
    detail_template = "The service makes overlays with qemu-img, and qemu-img cannot be used: {reason}."
    remedy_template = (
        "Install qemu-img on the host (`apt install qemu-utils`), and check that `qemu-img --version` works for the service's user."
    )


class LibvirtSeesOtherFiles(StillpointError):
    code = "libvirt_sees_other_files"
    title = "libvirt does not see the files that the worker makes"
    detail_template = "The worker made {path}, but {who} does not see the file there: {reason}."
    remedy_template = (
        "Run the worker on the host of {uri}, where libvirt and QEMU run, and give the worker the same mounts. Its unit must not have a "
        "private /tmp or home where the images are (PrivateTmp, ProtectHome). A container needs the same folders under the same paths. "
        "If the folder was mounted after libvirt was started, restart libvirt."
    )


class QemuCannotOpen(StillpointError):
    code = "qemu_cannot_open_overlay"
    title = "QEMU may not open the overlays"
    detail_template = "QEMU runs as {user} and cannot open {path}: {reason}, at {at}."
    remedy_template = (
        "Give that user access: `setfacl --modify user:{uid}:x {at}` for a folder. `namei -l {path}` shows the rights of each folder. "
        "Or set STILLPOINT_OVERLAY_DIR to a folder that this user can enter."
    )


class HostOutOfDescriptors(StillpointError):
    """Nothing was frozen and nothing is left behind. The job returns to the queue, and the attempt does not count."""

    code = "host_out_of_descriptors"
    title = "Too many files are open"
    detail_template = "{what}: {reason}."
    remedy_template = (
        "The service tries the job again by itself. Raise the limit (LimitNOFILE of the unit, `fs.file-max` of the host), "
        "or end the programs that hold the files open."
    )
