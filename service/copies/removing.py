"""The step of the courier that removes a point from a copy: the manifest first, so that what is left is never taken for a point."""

from datetime import UTC, datetime
from typing import Any

from service.clock import rfc3339
from service.copies.stores import opened
from service.errors import CopyLocked
from service.model.repository import MANIFEST_FILE, SIGNATURE_FILE
from service.repository import places
from service.repository.report import Report


def remove_copied(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Remove every object of a point, in whatever state an earlier try has left it. `left`: older contents that the store keeps.

    Nothing is removed while the store shows a lock of one of them. Raises CopyLocked, CopyRefused, CopyNotAnswering.
    """
    folder = "/".join(places.parts(arguments["folder"]))
    with opened(arguments["target"], report) as store:
        names = list(store.names(f"{folder}/"))
        for name in names:
            there = store.head(name)
            if there is not None and there.lock is not None and there.lock.until > datetime.now(UTC):
                raise CopyLocked(copy=store.shown, point=folder, until=rfc3339(there.lock.until))
            report.alive()
        first = (f"{folder}/{MANIFEST_FILE}", f"{folder}/{SIGNATURE_FILE}")
        for name in sorted(names, key=lambda each: (each != first[0], each != first[1], each)):
            store.delete(name)
            report.alive()
        left = store.purge(f"{folder}/")
    return {"removed": len(names), "left": left}


STEPS = {"remove_copied": remove_copied}
