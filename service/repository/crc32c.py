"""CRC-32C (Castagnoli), with which ext4 and XFS check their superblocks. The standard library has only the other CRC-32."""

from functools import cache


@cache
def _table() -> tuple[int, ...]:
    def entry(value: int) -> int:
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        return value

    return tuple(entry(value) for value in range(256))


def crc32c(content: bytes, start: int = 0xFFFFFFFF) -> int:
    """Without the final inversion, which only XFS does."""
    table, value = _table(), start
    for byte in content:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value
