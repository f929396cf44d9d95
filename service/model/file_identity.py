"""Identifies a file that the service made, because another file may have its name by now."""

import os
from dataclasses import dataclass
from typing import Any

from service.this_boot import boot_id


@dataclass(frozen=True)
class FileIdentity:
    """`boot`: the boot in which the file was made, because the numbers of devices change with each boot."""

    device: int
    inode: int
    boot: str

    @classmethod
    def of(cls, status: os.stat_result) -> "FileIdentity":
        return cls(status.st_dev, status.st_ino, boot_id())

    def is_of(self, status: os.stat_result) -> bool:
        return self.inode == status.st_ino and (self.device == status.st_dev or self.boot != boot_id())

    def as_document(self) -> dict[str, Any]:
        return {"device": self.device, "inode": self.inode, "boot": self.boot}

    @classmethod
    def from_document(cls, document: dict[str, Any] | None) -> "FileIdentity | None":
        return cls(document["device"], document["inode"], document["boot"]) if document else None
