"""Calibration: what makes the scores of a reward model comparable.

In its language, the score s of an answer of n characters becomes

    reward = (s - location) / scale - gain(n)

with location and scale of `scale.py` and the gain of `length.py`: what a score says
beyond its language and its length. Location and scale change no ranking within a prompt;
the gain by length may, and is meant to.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from arbitrage import config
from arbitrage.events import Shifted
from reward.calibrate.consensus import Consensus, combination, member_names
from reward.calibrate.drift import DriftAlarm
from reward.calibrate.length import LengthCurves
from reward.calibrate.raw import rewarded, uncalibrated, unscored
from reward.calibrate.scale import Scales

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arbitrage import ports
    from arbitrage.events import Event
    from arbitrage.types import Candidate, Prompt

_log = logging.getLogger(__name__)


def open_calibration(
    settings: config.AnyReward,
    hear: Callable[[Event], None] = lambda _: None,
    *,
    name: str | None = None,
) -> ports.Calibration:
    """The calibration that a reward's configuration asks for.

    Args:
        hear: is told when the scores in a language have shifted.
        name: of the reward in the log; None takes its kind.
    """
    name = name or settings.kind
    if isinstance(settings, config.EnsembleReward):
        members = {
            member: open_calibration(own, hear, name=f"{name}.{member}")
            for member, own in zip(member_names(settings), settings.members, strict=True)
        }
        return Consensus(members, combination(settings))
    if settings.calibration.per_language or settings.calibration.by_length:
        return Calibrated(settings.calibration, hear, name=name)
    return Uncalibrated()


class Uncalibrated:
    """Takes the scores for rewards as they are."""

    def calibrate(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates, unchanged; a score that is not finite is none, and cannot win."""
        del prompt
        return [c if uncalibrated(c) is not None else unscored(c) for c in candidates]

    def learn(self, prompt: Prompt, candidates: Sequence[Candidate]) -> None:
        """Has nothing to learn."""

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Has nothing to go on from."""


class Calibrated:
    """Learns what scores are like in each language, and makes rewards of them.

    Memory is a few kilobytes a language, whatever the number of prompts. A language
    and its parent, such as `zh-Hant` and `zh`, are two.

    Args:
        settings: what is to be taken out of the scores.
        hear: is told when the scores in a language have shifted.
        name: of the reward in the log.
    """

    def __init__(
        self,
        settings: config.Calibration,
        hear: Callable[[Event], None] = lambda _: None,
        *,
        name: str = "reward",
    ) -> None:
        self._settings = settings
        self._hear = hear
        self._name = name
        self._scales = Scales(settings.prior_strength)
        self._curves = LengthCurves(settings.prior_strength)
        self._alarms: defaultdict[str, DriftAlarm] = defaultdict(DriftAlarm)

    def calibrate(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates of one prompt, those with a score with their calibrated reward.

        The scalar it begins with is kept as `uncalibrated` in `raw`, and is what it
        begins with the next time. A score that is not finite becomes none, so that its
        candidate cannot win; a candidate without a score is returned as it is.
        """
        location, scale = self._scales.of(prompt.language)
        if not self._settings.per_language:
            location, scale = 0.0, 1.0

        def calibrated(candidate: Candidate) -> Candidate:
            score = uncalibrated(candidate)
            if score is None:
                return unscored(candidate)
            debiased = score - self._gain(prompt.language, candidate)
            return rewarded(candidate, (debiased - location) / scale)

        return [calibrated(candidate) for candidate in candidates]

    def learn(self, prompt: Prompt, candidates: Sequence[Candidate]) -> None:
        """Learns from all candidates of one prompt that have a finite score."""
        language = prompt.language
        lengths, scores, debiased = [], [], []
        for candidate in candidates:
            score = uncalibrated(candidate)
            if score is None:
                continue
            gain = self._gain(language, candidate)
            rest = self._scales.within_reach(language, score - gain)
            lengths.append(_length(candidate))
            scores.append(rest + gain)
            debiased.append(rest)
        if not scores:
            return
        self._scales.learn(language, debiased)
        if self._settings.by_length:
            _, scale = self._scales.of(language)
            self._curves.learn(language, scale, lengths, scores)
        # one value a prompt: its candidates are no independent draws
        self._watch(language, sum(scores) / len(scores))

    def state(self) -> dict[str, Any]:
        """All it has learned, for a snapshot."""
        return {
            "scales": self._scales.state(),
            "curves": self._curves.state(),
            "alarms": {language: alarm.state() for language, alarm in self._alarms.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Becomes what `state` was taken from; of an uncalibrated one, there is nothing."""
        if not state:
            return
        self._scales.restore(state["scales"])
        self._curves.restore(state["curves"])
        self._alarms.clear()
        for language, alarm in state["alarms"].items():
            self._alarms[language] = DriftAlarm.of_state(alarm)

    def _gain(self, language: str, candidate: Candidate) -> float:
        """What the answer's length has added to its score, in units of the score."""
        if not self._settings.by_length:
            return 0.0
        _, scale = self._scales.of(language)
        return scale * self._curves.of(language).gain(_length(candidate))

    def _watch(self, language: str, score: float) -> None:
        shift = self._alarms[language].learn(score)
        if shift is None:
            return
        # what was learned is of scores that no longer come
        self._scales.fade(language)
        self._curves.fade(language)
        _log.warning(
            "%s: scores in %r have shifted by %+.2f standard deviations, from %.4g to %.4g; "
            "look at what has changed: prompts, teachers or the reward model",
            self._name,
            language,
            shift.deviations,
            shift.before,
            shift.recent,
        )
        self._hear(Shifted(language, shift.deviations))


def _length(candidate: Candidate) -> int:
    return len(candidate.completion.text) if candidate.completion else 0
