"""The key of an encrypted image: whether it is needed, and what QEMU says of a wrong one."""

from service.errors import KeyUnusable
from service.repository.report import Report

_WRONG_KEY = ("Invalid password", "keyslot")
"""What QEMU says of a key that does not open the image. It has no code for that, and speaks English only."""


def is_about_the_key(reason: str) -> bool:
    """Whether a program of QEMU says that the key does not open the image."""
    return any(words in reason for words in _WRONG_KEY)


def wrong_key(path: str) -> KeyUnusable:
    return KeyUnusable(key=path, reason="this key does not open the image")


def need_key(is_encrypted: bool, report: Report, path: str) -> None:
    """Raises KeyUnusable."""
    if is_encrypted and report.key is None:
        raise KeyUnusable(key=path, reason="the image is encrypted, and the repository has no key")
