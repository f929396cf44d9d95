"""What `qemu-img check` says of one image of a point."""

import json
from typing import Any

from service.repository.image_key import is_about_the_key, wrong_key
from service.repository.images import ALONE, Image, QemuImgFailed, qemu_img_watched
from service.repository.report import Report
from service.repository.stored_chain import StoredImage

CORRUPT, LEAKS = 2, 3
"""The codes with which the program ends. Leaks are clusters that are allocated and not used: they cost space, and no data."""


def structure_of(image: StoredImage, report: Report, *, is_encrypted: bool) -> dict[str, Any]:
    """`reason`: what is wrong, or None. Raises KeyUnusable."""
    alone = Image(str(image.path), "qcow2", backing=ALONE, is_encrypted=is_encrypted)
    try:
        text = qemu_img_watched(["check", "--output=json", alone.name()], report, good=(0, CORRUPT, LEAKS))
        answer: dict[str, Any] = json.loads(text)
    except QemuImgFailed as failed:
        if is_about_the_key(failed.reason):
            raise wrong_key(str(image.path)) from failed
        return {"reason": failed.reason, "leaks": 0}
    except ValueError:
        return {"reason": "qemu-img does not say what it sees", "leaks": 0}
    wrong = [f"{answer[kind]} {kind}" for kind in ("corruptions", "check-errors") if answer.get(kind)]
    return {"reason": ", ".join(wrong) or None, "leaks": answer.get("leaks", 0)}
