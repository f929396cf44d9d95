"""Whether the state folder of a worker takes what it must write there: without the reports of guards no guest can be frozen."""

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
        """Tried now; the log and the metrics are told of it, too."""
        found = None
        try:
            room.find(self._path)
        except OSError as error:
            found = StateFolderUnwritable(path=str(self._path), reason=error.strerror or str(error))
        self._log.note(found)
        metrics.STATE_FOLDER_WRITABLE.set(found is None)
        return found
