"""A stamp of a point: what the filesystem says of each of its files, as a short text. It is another one after any file was written.

A program can set the time of the last write back, and not the time of the last change (ctime): every way to set it back changes it.
"""

import hashlib
import json

from service.model.manifest import Manifest
from service.model.repository import MANIFEST_FILE
from service.repository import stored_chain


def stamp_of(repository: str, folder: str, manifest: Manifest) -> str:
    """Nothing is read but what the filesystem says. Raises PointIncomplete, ForeignEntry, the errors of a repository."""
    lines = []
    for name in [MANIFEST_FILE, *sorted(file.name for file in manifest.files)]:
        status = stored_chain.regular_file(repository, folder, name).stat()
        lines.append([name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino])
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:32]
