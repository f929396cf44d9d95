"""Puts right the one bit of a small file that has changed, if that is all that happened to it: its checksum tells which one it was."""

import hashlib
from collections.abc import Callable

MAX_BYTES = 32 << 10
"""Bytes of a file. A larger file has too many bits to try each of them."""
_BETWEEN_SIGNS = 256
"""Bytes whose bits are tried between two signs of life."""


def with_one_bit_right(content: bytes, sha256: str, alive: Callable[[], None]) -> bytes | None:
    """`sha256`: of the content as it was, in hex. None: another thing happened to it, or it is too large."""
    if len(content) > MAX_BYTES:
        return None
    wanted, before = bytes.fromhex(sha256), hashlib.sha256()
    for position, byte in enumerate(content):
        rest = content[position + 1 :]
        for bit in range(8):
            tried = before.copy()
            tried.update(bytes((byte ^ 1 << bit,)) + rest)
            if tried.digest() == wanted:
                return content[:position] + bytes((byte ^ 1 << bit,)) + rest
        before.update(content[position : position + 1])
        if position % _BETWEEN_SIGNS == 0:
            alive()
    return None
