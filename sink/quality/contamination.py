"""Whether a text is one of a test's: what was trained on must not be measured with."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from sink.quality.evals import texts_of
from sink.quality.tokens import in_letters, tokens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Hashes = npt.NDArray[np.uint64]

_MOST_WORDS, _LEAST_WORDS = 13, 8
_MOST_LETTERS, _LEAST_LETTERS = 50, 30
_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)


@dataclass(frozen=True, slots=True)
class Match:
    """Where a text is the same as a test.

    Attributes:
        file: the test's.
        line: its line there, from 1 on; of a Parquet file, the row.
        ngram: the words that are the same, as they are compared.
    """

    file: str
    line: int
    ngram: str


class Contamination:
    """The n-grams of test sets, and which texts have one of them.

    A text is contaminated when it shares a run of 13 words with a test, case and
    punctuation aside: GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C). Where no
    spaces part the words, a run of 50 letters takes their place: GPT-4 (OpenAI 2023, arXiv
    2303.08774, appendix C) compares strings of 50 characters. A shorter test is looked for
    as a whole, from 8 words or 30 letters on, below which GPT-3 found chance to rule (of
    letters, as a whole but for the last nine); a test that is shorter still has to be the
    whole text.

    Of every run 12 bytes are held, a hash and whose it is: texts are not.

    Attributes:
        files: the tests' files, in their order.
        tests: how many texts they hold.
    """

    def __init__(self) -> None:
        self.files: list[str] = []
        self.tests = 0
        self._sizes: tuple[int, ...] = ()
        self._runs = _Index()
        self._whole = _Index()

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Contamination:
        """Reads test sets: JSONL, CSV, Parquet and TXT files, or folders of such.

        Every text of a row is a test, whatever its column; of a TXT file, every line.

        Raises:
            ConfigError: one is missing, of another kind, damaged, or holds no text.
        """
        made = cls()
        sizes: set[int] = set()
        for file, line, text in texts_of(paths):
            if not made.files or made.files[-1] != str(file):
                made.files.append(str(file))
            where = len(made.files) - 1, line
            made.tests += 1
            words = tokens(text)
            if size := _size(words):
                sizes.add(size)
                made._runs.add(_windows(_hashes(words), size), where)
            elif whole := tokens(text, operators=True):
                made._whole.add(_windows(_hashes(whole), len(whole)), where)
        made._sizes = tuple(sorted(sizes))
        made._runs.sort()
        made._whole.sort()
        return made

    def __len__(self) -> int:
        """How many runs are looked for."""
        return len(self._runs) + len(self._whole)

    def overlap(self, text: str) -> Match | None:
        """The first test that a text shares a run with, by where the run begins in it."""
        words = tokens(text)
        hashes = _hashes(words)
        found: list[tuple[int, int, tuple[int, int]]] = []
        for size in self._sizes:
            if size <= len(words):
                hit = self._runs.first(_windows(hashes, size))
                found += [(hit[0], size, hit[1])] if hit else []
        if found:
            start, size, (file, line) = min(found)
            return Match(self.files[file], line, " ".join(words[start : start + size]))
        if len(self._whole) and len(words) < _MOST_LETTERS:
            whole = tokens(text, operators=True)
            if whole and (hit := self._whole.first(_windows(_hashes(whole), len(whole)))):
                return Match(self.files[hit[1][0]], hit[1][1], " ".join(whole))
        return None


class _Index:
    """Hashes, each with the file and the line that it is from: the first of several."""

    def __init__(self) -> None:
        self._added: list[Hashes] = []
        self._hashes: Hashes = np.empty(0, np.uint64)
        self._tests: npt.NDArray[np.uint32] = np.empty(0, np.uint32)
        self._files = array("I")
        self._lines = array("I")

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, hashes: Hashes, where: tuple[int, int]) -> None:
        self._added.append(hashes)
        self._files.append(where[0])
        self._lines.append(where[1])

    def sort(self) -> None:
        """Makes what was added ready to be looked for."""
        if self._added:
            numbers = np.arange(len(self._added), dtype=np.uint32)
            tests = np.repeat(numbers, [len(hashes) for hashes in self._added])
            self._hashes, first = np.unique(np.concatenate(self._added), return_index=True)
            self._tests = tests[first]
            self._added = []

    def first(self, hashes: Hashes) -> tuple[int, tuple[int, int]] | None:
        """The place of the first hash that is here, and the file and line it is from."""
        if not len(self._hashes):
            return None
        places = np.searchsorted(self._hashes, hashes)
        places[places == len(self._hashes)] = 0
        hits = np.flatnonzero(self._hashes[places] == hashes)
        if not len(hits):
            return None
        test = int(self._tests[places[hits[0]]])
        return int(hits[0]), (self._files[test], self._lines[test])


def _size(words: Sequence[str]) -> int:
    """How long the runs are that a test is looked for by; 0 where it is too short for any."""
    spaceless = in_letters(words)
    most = _MOST_LETTERS if spaceless else _MOST_WORDS
    least = _LEAST_LETTERS if spaceless else _LEAST_WORDS
    if len(words) < least:
        return 0
    # in tens of letters: every length takes its own look at every text
    return min(len(words) // 10 * 10 if spaceless else len(words), most)


def _hashes(words: Sequence[str]) -> Hashes:
    return np.fromiter(map(_hash, words), np.uint64, len(words))


def _windows(hashes: Hashes, size: int) -> Hashes:
    """A hash of every run of so many words, `(words - size + 1,)`.

    Polynomials modulo 2^64 by differences of one running sum (Karp and Rabin 1987): a run
    costs the same whatever its length.
    """
    sums = np.zeros(len(hashes) + 1, np.uint64)
    np.cumsum(hashes * _powers(_BASE, len(hashes)), out=sums[1:])
    windows: Hashes = (sums[size:] - sums[:-size]) * _powers(_INVERSE, len(hashes) - size + 1)
    return windows


def _powers(base: int, count: int) -> Hashes:
    """The first powers of a number, modulo 2^64."""
    # tables of a few sizes serve texts of any
    return _power_table(base, 1 << max(10, count.bit_length()))[:count]


@lru_cache(maxsize=32)
def _power_table(base: int, length: int) -> Hashes:
    factors: Hashes = np.full(length, base, np.uint64)
    factors[0] = 1
    powers: Hashes = np.multiply.accumulate(factors)
    return powers


@lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
