"""Merging a file in the middle of a disk's chain into the file right below it, while the domain runs. QEMU ends the job by itself."""

from dataclasses import dataclass

from service.hypervisor.calls import LibvirtCalls
from service.hypervisor.handle import DomainHandle, libvirt


@dataclass(frozen=True)
class BlockJob:
    """A block job on a disk, by QEMU's own count. `is_commit` False: a job of another kind, which merges no file in the middle."""

    is_commit: bool
    done_bytes: int
    total_bytes: int


class Commits:
    def __init__(self, handle: DomainHandle, calls: LibvirtCalls) -> None:
        self._handle = handle
        self._calls = calls

    def start(self, target: str, *, top: str, base: str) -> None:
        """Begin to merge `top` into `base`. The guest writes to a file further above, and continues to do so."""
        self._calls("virDomainBlockCommit", lambda: self._handle.block_commit(target, base, top))

    def job(self, target: str) -> BlockJob | None:
        """None: no block job runs on the disk. Then the chain of the disk tells whether the last job ended well."""
        job = self._calls("virDomainGetBlockJobInfo", lambda: self._handle.block_job(target))
        if not job:
            return None
        return BlockJob(job.get("type") == libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT, int(job.get("cur", 0)), int(job.get("end", 0)))
