"""Checks that the worker can write to its state folder. Without the reports of guards there, no guest can be frozen."""

from pathlib import Path

from service import metrics
from service.db import room
from service.errors import StateFolderUnwritable
from service.worker.absence import Absence


class StateFolder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = Absence("state_folder")

    def problem(self) -> StateFolderUnwritable | None:
        """Try to write now. The result also goes to the log and the metrics."""
        problem = None
        try:
            room.find(self._path)
        except OSError as error:
            problem = StateFolderUnwritable(path=str(self._path), reason=error.strerror or str(error))
        self._log.note(problem)
        metrics.STATE_FOLDER_WRITABLE.set(problem is None)
        return problem
