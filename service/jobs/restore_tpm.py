"""The state of an emulated TPM: a folder whose place libvirt derives from the UUID of the domain.

The restored state is made beside that folder, and takes its place while the domain is off. The old state is kept under another name.
"""

import os
import pwd
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from service import bounded_io
from service.model import domain_xml

QEMU_CONF = Path("/etc/libvirt/qemu.conf")
DEFAULT_USER = "tss"
"""libvirt's own default for the user of swtpm."""


@dataclass(frozen=True)
class TpmSwap:
    """`staged`: the restored state until it is in place. `old`: the earlier state, from then on, if the domain had one (`had_state`)."""

    state: str
    staged: str
    old: str
    had_state: bool

    @classmethod
    def of(cls, definition: str, mark: str) -> "TpmSwap | None":
        """None: the domain has no emulated TPM. Raises StorageRefused, StorageNotAnswering."""
        state = domain_xml.tpm_state(definition)
        if state is None:
            return None
        had_state = bounded_io.translated_call("looking at", state, Path(state).exists)
        return cls(state, f"{state}.{mark}.new", f"{state}.before-{mark}", had_state)

    @classmethod
    def from_document(cls, document: dict[str, Any] | None) -> "TpmSwap | None":
        return cls(**document) if document is not None else None

    def as_document(self) -> dict[str, Any]:
        return asdict(self)

    def stage(self, names: list[str], copy_out: Callable[[str, str], object]) -> None:
        """`copy_out`: writes a file of the point, by its name there, to a path. Raises StorageRefused, and what `copy_out` raises."""
        bounded_io.translated_call("making", self.staged, self._make_staged)
        for name in names:
            copy_out(name, str(PurePath(self.staged) / PurePath(name).name))
        bounded_io.translated_call("handing over", self.staged, self._hand_over)

    def put_in_place(self) -> None:
        """Can be repeated. Raises StorageRefused, StorageNotAnswering."""
        bounded_io.translated_call("replacing", self.state, self._put_in_place)

    def take_back(self) -> None:
        """The earlier state as before, and nothing of the restored one. Can be repeated. Raises StorageRefused, StorageNotAnswering."""
        bounded_io.translated_call("putting back", self.state, self._take_back)

    def is_in_place(self) -> bool:
        """Raises StorageNotAnswering."""
        return not bounded_io.translated_call("looking at", self.staged, Path(self.staged).exists)

    def leave_in_use(self) -> None:
        """The domain runs, and its TPM has the folder open: the state that is in place stays. Raises StorageNotAnswering."""
        bounded_io.translated_call("removing", self.staged, lambda: shutil.rmtree(self.staged, ignore_errors=True))

    def _make_staged(self) -> None:
        parent = Path(self.state).parent
        if not parent.exists():
            parent.mkdir()
            # As libvirt makes it, and whatever the umask of the service is: swtpm runs as another user.
            parent.chmod(0o711)
        shutil.rmtree(self.staged, ignore_errors=True)
        Path(self.staged).mkdir(mode=0o700)

    def _hand_over(self) -> None:
        owner = _owner_of(self.state) or _swtpm_user()
        if owner is None or os.geteuid() != 0:
            return
        for path in (*Path(self.staged).iterdir(), Path(self.staged)):
            os.chown(path, *owner)

    def _put_in_place(self) -> None:
        if not Path(self.staged).exists():
            return
        if Path(self.state).exists() and not Path(self.old).exists():
            Path(self.state).rename(self.old)
        shutil.rmtree(self.state, ignore_errors=True)
        Path(self.staged).rename(self.state)

    def _take_back(self) -> None:
        shutil.rmtree(self.staged, ignore_errors=True)
        if Path(self.old).exists():
            shutil.rmtree(self.state, ignore_errors=True)
            Path(self.old).rename(self.state)
        elif not self.had_state:
            shutil.rmtree(self.state, ignore_errors=True)
        with suppress(OSError):
            # Only the folder of a domain that has no other state is empty.
            Path(self.state).parent.rmdir()


def _owner_of(folder: str) -> tuple[int, int] | None:
    with suppress(OSError):
        status = Path(folder).stat()
        return status.st_uid, status.st_gid
    return None


def _swtpm_user() -> tuple[int, int] | None:
    """The user as whom libvirt runs swtpm. None: this host has no such user."""
    text = ""
    with suppress(OSError):
        text = QEMU_CONF.read_text(errors="replace")
    named = re.search(r'^\s*swtpm_user\s*=\s*"([^"]+)"', text, re.MULTILINE)
    with suppress(KeyError):
        entry = pwd.getpwnam(named[1] if named is not None else DEFAULT_USER)
        return entry.pw_uid, entry.pw_gid
    return None
