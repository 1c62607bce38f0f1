"""What a policy knows before its first prompt: `policy.warm_start`."""

from __future__ import annotations

import asyncio
import csv
import logging
import math
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from arbitrage.errors import (
    ArbitrageError,
    ConfigError,
    InvalidPrompt,
    SinkError,
    SnapshotError,
)
from arbitrage.language import normalise
from arbitrage.types import Candidate, Completion, Context, Score
from router.snapshots import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from arbitrage import config, ports
    from arbitrage.types import Sample
    from router.arrays import FloatArray

Table = dict[str, dict[str, float]]
"""Scores, by language and teacher."""

_LOG = logging.getLogger(__name__)
_KEY = "policy.warm_start"
_COLUMNS = ("language", "teacher", "score")
_OF_THE_RUN = ("pacer", "rng")  # what other runs have spent and drawn is not this one's
_AT_ONCE = 64  # samples read, and learned from, before others get their turn
_SEED = 0


async def begin(
    policy: ports.Policy,
    settings: config.WarmStart,
    *,
    arms: Sequence[str],
    standardised: bool,
    read: Callable[[Sequence[Path]], Iterable[Sample]],
    encoder: ports.Encoder | None = None,
) -> None:
    """Lets a new policy start from a snapshot, then learn a table of scores, then samples.

    Args:
        policy: it has learned nothing.
        settings: where to take what from.
        arms: the teachers of the pool.
        standardised: whether rewards have mean 0 and variance 1 in each language; the
            scores of the table are then taken to be such, too, and otherwise to be in
            the rewards' units.
        read: gives the samples of finished runs' folders, one after another.
        encoder: makes the features of their prompts.

    Raises:
        ConfigError: something cannot be read; the message names the key and the file.
    """
    fresh = policy.state()
    if settings.snapshot:
        try:
            await asyncio.to_thread(snapshot.restore, settings.snapshot, policy)
        except SnapshotError as error:
            raise ConfigError(f"{_KEY}.snapshot: {error}") from error
    if settings.scores:
        table = await asyncio.to_thread(read_scores, settings.scores)
        _tell_of_strangers(table, arms, settings.scores)
        for context, candidates in answers(
            table, arms, settings.score_weight, standardised=standardised
        ):
            policy.update(context, candidates)
    if settings.samples:
        try:
            samples = iter(await asyncio.to_thread(read, settings.samples))
            await _learn(policy, samples, encoder)
        except SinkError as error:
            raise ConfigError(f"{_KEY}.samples: {error}") from error
    policy.restore({**policy.state(), **{key: fresh[key] for key in _OF_THE_RUN}})


def read_scores(path: Path) -> Table:
    """Reads a CSV file with the columns `language`, `teacher` and `score`; others are ignored.

    Raises:
        ConfigError: it cannot be read, or holds something wrong; file and line are named.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _table(csv.DictReader(file, strict=True))
    except OSError as error:
        raise ConfigError(f"{_KEY}.scores: {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{_KEY}.scores: {path}: is not UTF-8") from error
    except ValueError as error:
        raise ConfigError(f"{_KEY}.scores: {path}: {error}") from error


def answers(
    table: Table, arms: Sequence[str], weight: float, *, standardised: bool
) -> Iterator[tuple[Context, list[Candidate]]]:
    """Answers that say what a table says, as if they had been judged.

    Every score becomes `weight` answers, rounded, whose mean reward is the score, and
    which lie about it as far apart as the language's scores lie from one another;
    what one teacher's say of another's is nothing. They come in rounds: in each, every
    language once, in alphabetical order, with one answer of each of its teachers.

    Args:
        table: the scores; teachers that are not among `arms` are left out.
        arms: in the order in which they answer.
        weight: answers that a score counts for, at least one.
        standardised: whether the rewards have mean 0 and variance 1 in each language; a
            language with one teacher then compares nothing, and is left out.

    Yields:
        A context, and its scored candidates; they were not paid for, and count as cached.
    """
    count = max(round(weight), 1)
    rng = np.random.default_rng(_SEED)
    rewards: dict[str, tuple[list[str], FloatArray]] = {}
    for language in sorted(table):
        known = [arm for arm in arms if arm in table[language]]
        if len(known) > standardised:
            scores = np.array([table[language][arm] for arm in known])
            noise = _noise(rng, count, len(known))
            rewards[language] = known, _rewards(scores, noise, standardised=standardised)
    for number in range(count):
        for language, (known, of_all) in rewards.items():
            yield (
                Context(language),
                [
                    Candidate(arm, Completion("", cached=True), score=Score(float(reward), {}))
                    for arm, reward in zip(known, of_all[number], strict=True)
                ],
            )


def _table(rows: csv.DictReader[str]) -> Table:
    """All rows; a ValueError tells what is wrong, and in which line."""
    table: Table = {}
    try:
        _check_header(rows.fieldnames or ())
        for row in rows:
            _add(table, *(row[name] for name in _COLUMNS))
    except UnicodeDecodeError:
        raise
    except (ValueError, csv.Error) as error:
        raise ValueError(f"line {max(rows.reader.line_num, 1)}: {error}") from error
    if not table:
        raise ValueError("holds no score")
    return table


def _check_header(names: Sequence[str]) -> None:
    missing = [name for name in _COLUMNS if name not in names]
    if missing:
        raise ValueError(f"there is no column {missing[0]!r}; name {', '.join(_COLUMNS)}")


def _add(table: Table, language: str | None, teacher: str | None, score: str | None) -> None:
    if not (language and teacher and score):
        raise ValueError("a language, a teacher or a score is missing")
    try:
        tag, figure = normalise(language), float(score)
    except InvalidPrompt as error:
        raise ValueError(error.reason) from error
    if not math.isfinite(figure):
        raise ValueError(f"{score!r} is no score")
    if teacher in table.setdefault(tag, {}):
        raise ValueError(f"a second score of {teacher!r} in {tag!r}")
    table[tag][teacher] = figure


def _tell_of_strangers(table: Table, arms: Sequence[str], path: Path) -> None:
    strangers = sorted({teacher for scores in table.values() for teacher in scores} - set(arms))
    if strangers:
        names = ", ".join(map(repr, strangers))
        _LOG.warning("%s: no teacher is named %s; their scores are ignored", path, names)


def _noise(rng: np.random.Generator, count: int, arms: int) -> FloatArray:
    """`(count, arms)`, each arm's with mean 0 and variance 1; zeros where one says no more."""
    if count == 1:
        return np.zeros((1, arms))
    noise = rng.standard_normal((count, arms))
    noise -= noise.mean(axis=0)
    scaled: FloatArray = noise / noise.std(axis=0)
    return scaled


def _rewards(scores: FloatArray, noise: FloatArray, *, standardised: bool) -> FloatArray:
    spread = float(scores.std())
    if standardised:
        apart = (scores - scores.mean()) / (spread or 1.0)
        rewards: FloatArray = (apart + noise) / math.sqrt(2.0)
    else:
        rewards = scores + spread * noise
    return rewards


async def _learn(
    policy: ports.Policy, samples: Iterator[Sample], encoder: ports.Encoder | None
) -> None:
    while batch := await asyncio.to_thread(lambda: list(islice(samples, _AT_ONCE))):
        for sample in batch:
            prompt, features = sample.prompt, None
            if encoder:
                # one that cannot be embedded was routed without, too
                with suppress(ArbitrageError):
                    features = await encoder.encode(prompt.text)
            policy.update(Context(prompt.language, prompt.domain, features), sample.candidates)
