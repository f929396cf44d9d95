"""Whether a guest has written into an overlay. A new overlay is empty; data in the overlay shows that it was a disk's active file."""

import os
from pathlib import Path

from service.model import image_header


def is_in(path: str | Path) -> bool:
    """Raises OSError. A file that is not a qcow2 was never used as an overlay."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        header = image_header.parse(os.pread(descriptor, image_header.READ_BYTES, 0))
        # The first write of a guest makes the first entry of this table.
        return header is not None and header.l1_at > 0 and bool(os.pread(descriptor, header.l1_entries * 8, header.l1_at).strip(b"\0"))
    finally:
        os.close(descriptor)
