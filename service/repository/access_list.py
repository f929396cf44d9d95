"""Access control lists of files (POSIX 1e), as Linux keeps them in an extended attribute: one more user may pass or read.

Plain bytes without a library, so that it runs in the hand. A list leaves the rights of the file's owner and group as they are.
"""

import os
import stat
import struct
from dataclasses import dataclass

ATTRIBUTE = "system.posix_acl_access"
READ, PASS = 4, 1
_VERSION = 2
_OWNER, _USER, _GROUP, _NAMED_GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID = 0xFFFFFFFF


@dataclass(frozen=True, order=True)
class Entry:
    tag: int
    id: int
    rights: int


def grant(path: str, uid: int, rights: int) -> None:
    """Give the user these rights, and all that it had before. Raises OSError: the filesystem has no lists, or the file is not ours."""
    entries = _entries(path)
    had = next((entry.rights for entry in entries if (entry.tag, entry.id) == (_USER, uid)), 0)
    _write(path, [*(entry for entry in entries if (entry.tag, entry.id) != (_USER, uid)), Entry(_USER, uid, had | rights)])


def revoke(path: str, uid: int) -> None:
    """Take the user off the list. A list that names nobody any more is removed. Raises OSError."""
    entries = _entries(path)
    kept = [entry for entry in entries if (entry.tag, entry.id) != (_USER, uid)]
    if len(kept) == len(entries):
        return
    _write(path, kept)
    if not any(entry.tag in (_USER, _NAMED_GROUP) for entry in kept):
        os.removexattr(path, ATTRIBUTE, follow_symlinks=False)


def users(path: str) -> dict[int, int]:
    """The rights of each user that the list names, by its number. Raises OSError."""
    return {entry.id: entry.rights for entry in _entries(path) if entry.tag == _USER}


def _entries(path: str) -> list[Entry]:
    """Without the mask. A file without a list has the rights of its mode."""
    try:
        stored = os.getxattr(path, ATTRIBUTE, follow_symlinks=False)
    except OSError as error:
        # The name of the error differs between systems: no list, or no lists at all. The write tells the second.
        if error.errno not in (getattr(os, "ENODATA", 61), 61, 95):
            raise
        stored = b""
    if not stored:
        mode = os.lstat(path).st_mode
        return [Entry(_OWNER, _NO_ID, mode >> 6 & 7), Entry(_GROUP, _NO_ID, mode >> 3 & 7), Entry(_OTHER, _NO_ID, mode & 7)]
    entries = [Entry(tag, number, rights) for tag, rights, number in struct.iter_unpack("<HHI", stored[4:])]
    return [entry for entry in entries if entry.tag != _MASK]


def _write(path: str, entries: list[Entry]) -> None:
    # The mask limits named users and the group. Linux shows it as the group's rights of the mode.
    mask = 0
    for entry in entries:
        mask |= entry.rights if entry.tag in (_USER, _GROUP, _NAMED_GROUP) else 0
    whole = sorted([*entries, Entry(_MASK, _NO_ID, mask)])
    packed = struct.pack("<I", _VERSION) + b"".join(struct.pack("<HHI", entry.tag, entry.rights, entry.id) for entry in whole)
    os.setxattr(path, ATTRIBUTE, packed, follow_symlinks=False)


def mode_of(path: str) -> int:
    """The rights of owner, group and others, without what the list adds. Raises OSError."""
    rights = {entry.tag: entry.rights for entry in _entries(path)}
    return stat.S_IMODE(rights[_OWNER] << 6 | rights[_GROUP] << 3 | rights[_OTHER])
