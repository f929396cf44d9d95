"""A program that opens files as another user, below the folder that another process sees as `/`: `python -I -S opened_as.py`.

The program is a process of its own because a process has one user for all its threads. The worker does not import this module, and the
module imports nothing of the service, so that the program starts in milliseconds.

stdin: one JSON object with `root`, `files` (each with `path` and `lend`), and the fields of `Credentials`.
stdout: one JSON object. `files` has for each file the error number (0: the file was opened for reading and writing) and the path that
refused. If nothing was tried, the object has `untried` instead: the reason in words.
"""

import ctypes
import json
import os
import sys
from typing import Any

_LINUX_CAPABILITY_VERSION_3 = 0x20080522


def main() -> None:
    task = json.load(sys.stdin)
    try:
        root = os.open(task["root"], os.O_PATH | os.O_DIRECTORY)
        answer: dict[str, Any] = {"files": [_try(task, root, file["path"], lend=file["lend"]) for file in task["files"]]}
    except _NotTried as error:
        answer = {"untried": str(error)}
    except OSError as error:
        answer = {"untried": f"{task['root']}: {error.strerror}"}
    json.dump(answer, sys.stdout)


class _NotTried(Exception):
    pass


def _try(task: dict[str, Any], root: int, path: str, *, lend: bool) -> dict[str, Any]:
    """`lend`: give the file the owner that libvirt will give it, until it was tried."""
    relative = path.lstrip("/")
    lent = _lend(root, relative, task) if lend and os.geteuid() == 0 else None
    back = _become(task)
    try:
        return _open(root, relative)
    finally:
        back()
        if lent is not None:
            file, owner = lent
            os.fchown(file, *owner)
            os.close(file)


def _lend(root: int, relative: str, task: dict[str, Any]) -> tuple[int, tuple[int, int]] | None:
    try:
        file = os.open(relative, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        status = os.fstat(file)
        os.fchown(file, task["uid"], task["gid"])
    except OSError:
        # libvirt could not change the owner either (NFS that squashes root). The file is tried with the owner that it has.
        return None
    return file, (status.st_uid, status.st_gid)


def _become(task: dict[str, Any]) -> Any:
    """Become the user of the task. Returns a function that undoes this. Raises _NotTried."""
    uid, gid, groups = task["uid"], task["gid"], task["groups"]
    if os.geteuid() != 0:
        if os.geteuid() != uid:
            raise _NotTried(f"the worker runs as user {os.geteuid()}, and only root can try what another user may open")
        return lambda: None
    before = (os.getgroups(), os.getegid())
    try:
        os.setgroups(groups)
        os.setegid(gid)
        os.seteuid(uid)
    except OSError as error:
        os.seteuid(0)
        raise _NotTried(f"the worker may not become another user (CAP_SETUID, CAP_SETGID): {error.strerror}") from error
    drops = uid == 0 and not task["has_rights_of_root"]
    kept = _without_rights() if drops else None

    def back() -> None:
        if kept is not None:
            _set_rights(kept)
        os.seteuid(0)
        os.setegid(before[1])
        os.setgroups(before[0])

    return back


def _without_rights() -> Any:
    """Drop the rights of root: a QEMU that libvirt runs as root has none of them. Returns the earlier rights, to set them again."""
    header, rights = _header(), (ctypes.c_uint32 * 6)()
    _must_work(ctypes.CDLL(None, use_errno=True).capget(header, rights))
    # Two groups of three numbers. In each group: the rights in force, the rights that may be taken again, the inherited rights.
    _set_rights((ctypes.c_uint32 * 6)(0, rights[1], rights[2], 0, rights[4], rights[5]))
    return rights


def _set_rights(rights: Any) -> None:
    _must_work(ctypes.CDLL(None, use_errno=True).capset(_header(), rights))


def _header() -> Any:
    return (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)


def _must_work(result: int) -> None:
    if result != 0:
        raise _NotTried(f"the rights of root could not be dropped: {os.strerror(ctypes.get_errno())}")


def _open(root: int, relative: str) -> dict[str, Any]:
    try:
        os.close(os.open(relative, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root))
    except OSError as error:
        return {"error": error.errno, "at": _obstacle(root, relative)}
    return {"error": 0, "at": None}


def _obstacle(root: int, relative: str) -> str:
    """The folder that cannot be entered, or the file itself."""
    parts = relative.split("/")
    for depth in range(1, len(parts)):
        folder = "/".join(parts[:depth])
        try:
            os.stat(f"{folder}/.", dir_fd=root)
        except OSError:
            return f"/{folder}"
    return f"/{relative}"


if __name__ == "__main__":
    main()
