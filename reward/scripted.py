"""The shipped fake reward: scores the answers of scripted teachers by their given quality."""

from __future__ import annotations

import hashlib
from statistics import NormalDist
from typing import TYPE_CHECKING

from arbitrage import config
from arbitrage.errors import ConfigError, InvalidPrompt
from arbitrage.language import normalise, parent
from arbitrage.types import Score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbitrage.types import Candidate, Prompt
    from reward import Run

_DEFAULT = "default"
_DRIFTED = "[drifted]"
_STANDARD = NormalDist()


async def open_reward(
    settings: config.ScriptedReward,  # noqa: ARG001 - every reward is opened with them
    run: Run,
) -> ScriptedReward:
    """The reward of a configuration, whose teachers say what their answers are worth.

    Raises:
        ConfigError: a quality is given for something that is not a language.
    """
    return ScriptedReward(run.teachers)


class ScriptedReward:
    """A seeded function of teacher, language and text.

    The reward is the teacher's quality in the prompt's language plus normal noise
    that the text decides: scoring an answer twice gives one reward. An answer that
    begins with `[drifted]` is scored by the teacher's `drift_quality`, where that
    names the language, its parent or `default`, and by `quality` otherwise. A
    teacher that is not scripted, and a language without a quality, count as 0.

    Args:
        teachers: the configuration's teachers; those of other kinds are passed over.
        noise: standard deviation of the noise, in units of quality.
    """

    def __init__(
        self, teachers: Sequence[config.Teacher], *, seed: int = 0, noise: float = 0.1
    ) -> None:
        scripted = [t for t in teachers if isinstance(t, config.ScriptedTeacher)]
        self._quality = {t.name: _table(t.name, "quality", t.quality) for t in scripted}
        self._drifted = {t.name: _table(t.name, "drift_quality", t.drift_quality) for t in scripted}
        self._noise = noise
        self._seed = seed

    @property
    def queue_depth(self) -> int:
        """Nothing waits: an answer's reward is known at once."""
        return 0

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        """One score a candidate, in order; `raw` holds it as `scripted`."""
        return [self._score(prompt.language, candidate) for candidate in candidates]

    async def close(self) -> None:
        """Holds nothing to free."""

    def _score(self, language: str, candidate: Candidate) -> Score:
        text = candidate.completion.text if candidate.completion else ""
        reward = self._quality_of(candidate.teacher, language, text)
        chance = _fraction(self._seed, candidate.teacher, language, text)
        reward += self._noise * _STANDARD.inv_cdf(chance)
        return Score(reward=reward, raw={"scripted": reward})

    def _quality_of(self, teacher: str, language: str, text: str) -> float:
        tables = [self._quality.get(teacher, {})]
        if text.startswith(_DRIFTED):
            tables.insert(0, self._drifted.get(teacher, {}))
        for table in tables:
            for key in (language, parent(language), _DEFAULT):
                if key in table:
                    return table[key]
        return 0.0


def _table(teacher: str, key: str, quality: Mapping[str, float]) -> dict[str | None, float]:
    try:
        return {tag if tag == _DEFAULT else normalise(tag): q for tag, q in quality.items()}
    except InvalidPrompt as error:
        raise ConfigError(f"teacher {teacher!r}: {key}: {error}") from None


def _fraction(*parts: object) -> float:
    """A number in (0, 1) that depends on the parts alone."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=6).digest()
    return (int.from_bytes(digest) + 0.5) / 2**48
