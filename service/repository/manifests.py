"""The text of a manifest as it is stored."""

import json

from service.errors import RecordUnreadable
from service.model.manifest import Manifest

MAX_MANIFEST_BYTES = 16 << 20
"""Bytes of a manifest. A larger file is not one of ours."""


def parsed(text: str) -> Manifest:
    """Raises RecordUnreadable, VersionUnknown."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordUnreadable(what="manifest", reason=f"{type(error).__name__}: {error}") from error
    return Manifest.from_document(document)
