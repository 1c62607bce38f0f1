"""Tells cheaply of most keys that they are not in a file, so that nobody looks there."""

from __future__ import annotations

_BITS = 1 << 26  # 8 MiB: with four million keys in it, one in 400 others seems to be, too
_HASHES = 4


class Sieve:
    """A Bloom filter (1970, CACM 13) of keys that are hashes themselves, of 128 bits.

    >>> sieve, key, other = Sieve(), bytes(range(16)), bytes(range(1, 17))
    >>> sieve.add(key)
    >>> key in sieve, other in sieve
    (True, False)
    """

    def __init__(self) -> None:
        self._bits = bytearray(_BITS // 8)

    def add(self, key: bytes) -> None:
        """Lets a key through from now on."""
        for place in _places(key):
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, key: bytes) -> bool:
        """Whether a key may have been added; False is for sure."""
        return all(self._bits[place >> 3] >> (place & 7) & 1 for place in _places(key))


def _places(key: bytes) -> list[int]:
    number = int.from_bytes(key, "little")
    return [number >> (32 * i) & (_BITS - 1) for i in range(_HASHES)]
