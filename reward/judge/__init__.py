"""A generative judge: any teacher, asked for grades or for preferences (arXiv 2306.05685).

`prompts.py` writes what is asked, `replies.py` reads what comes back, and the
pool of judges makes the calls, within its limits and its budget.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from arbitrage import config
from arbitrage.errors import ConfigError, RewardError
from arbitrage.types import Prompt, Score
from reward.judge.prompts import JudgePrompts, schema
from reward.judge.replies import grade_in, preference_in
from reward.judge.tournament import Game, Standing, pairings, standings
from reward.judge.votes import Voter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arbitrage.events import Event
    from arbitrage.ports import Pool
    from arbitrage.types import Candidate, TeacherInfo
    from reward import Run
    from reward.judge.votes import Votes

_LOG = logging.getLogger(__name__)
_VARIED_TEMPERATURE = 0.7
_ALONE = 0.5


async def open_reward(settings: config.JudgeReward, run: Run) -> JudgeReward:
    """The judge of a configuration, which the run's pool of judges has opened.

    Raises:
        ConfigError: no pool has.
    """
    name = settings.teacher.name
    if run.judges is None or all(info.name != name for info in run.judges.describe()):
        raise ConfigError(
            f"reward.teacher: nobody has opened the judge {name!r}; give reward.open_reward a Run "
            "whose judges are teachers.open_pool(judge_teachers(settings))"
        )
    return JudgeReward(settings, run.judges, run.describe, run.hear)


def judge_teachers(settings: config.AnyReward) -> list[config.AnyTeacher]:
    """The teachers that a reward asks for their judgement, as a pool has to open them."""
    return [judge_teacher(judge) for judge in config.judges(settings)]


def judge_teacher(settings: config.JudgeReward) -> config.AnyTeacher:
    """The teacher of a judge, with the sampling that judging needs.

    One call brings all votes on an answer, so that the prompt is paid once. The provider is
    told the schema of the reply, unless the sampling has one of its own: one with the key
    `score` or `better` among others lets a judge reason first, and `{}` asks without any, for
    a provider that takes none. A single vote is drawn at temperature 0; several at 0.7, since
    at 0 they would be one vote; unless a temperature is given.
    """
    given = settings.teacher.sampling
    temperature, asked = given.temperature, given.json_schema
    if temperature is None:
        temperature = _VARIED_TEMPERATURE if settings.votes > 1 else 0.0
    sampling = replace(
        given,
        temperature=temperature,
        n=settings.votes,
        json_schema=schema(settings) if asked is None else asked or None,
    )
    return replace(settings.teacher, sampling=sampling)


class JudgeReward:
    """Scores answers by what a judge says of them.

    Pointwise, the score is the mean grade of the votes. Pairwise, it is the share of its
    comparisons that an answer wins, in [0, 1]; each pair is compared in both orders, and a
    judge that prefers a place rather than an answer makes it a tie. Only the candidates of
    one call are compared, so shares of different waves do not measure the same; an answer
    that is alone in its wave has 0.5. Of more than six candidates, each meets five others
    at most, drawn by the prompt's id.

    A vote that cannot be read is asked for once more; then it is missing. So is a pair of
    which one order has no vote.

    Args:
        settings: of the judge.
        judges: the pool that asks it.
        describe: the teachers whose answers are judged; those of the judge's own model are
            left without a score, unless the settings say otherwise.
        hear: is told of the judge's replies.
    """

    def __init__(
        self,
        settings: config.JudgeReward,
        judges: Pool,
        describe: Callable[[], Sequence[TeacherInfo]],
        hear: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._describe = describe
        self._name = settings.teacher.name
        self._voter = Voter(settings.teacher, judges, settings.votes, hear)
        self._under_way = 0
        self._warned = False
        self._warn_where_all_are_own()

    @property
    def queue_depth(self) -> int:
        """Candidates that wait for the judge, or are being judged now."""
        return self._under_way

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score | None]:
        """Judges the candidates of one prompt; cancelling it cancels the calls.

        Returns:
            One score a candidate, in order; `raw` holds `judge`, which is the score, and
            `judge.votes` or, pairwise, `judge.consistency`: the share of an answer's pairs
            on which both orders agree. None for an answer of the judge's own, and for one
            without a vote.

        Raises:
            RewardError: none of those that were to be judged has a vote.
        """
        own = self._own()
        judged = [c for c in candidates if c.teacher not in own]
        if not judged:
            self._warn_where_all_are_own()
            return [None] * len(candidates)
        self._under_way += len(judged)
        try:
            scores = iter(await self._judge(prompt, judged))
        finally:
            self._under_way -= len(judged)
        return [None if c.teacher in own else next(scores) for c in candidates]

    async def close(self) -> None:
        """Holds nothing to free: the judge is its pool's."""

    async def _judge(self, prompt: Prompt, judged: Sequence[Candidate]) -> list[Score | None]:
        answers = [c.completion.text if c.completion else "" for c in judged]
        judge = self._compare if self._settings.pairwise else self._grade
        scores, votes = await judge(prompt, answers)
        unscored = [c.teacher for c, score in zip(judged, scores, strict=True) if score is None]
        if unscored:
            who = f"judge {self._name!r} has no verdict on"
            why = f"to prompt {prompt.prompt_id!r}: {next(v.missing for v in votes if v.missing)}"
            if len(unscored) == len(scores):
                raise RewardError(f"{who} any of {len(scores)} answers {why}")
            _LOG.warning("%s the answer of %s %s", who, ", ".join(unscored), why)
        return scores

    async def _grade(
        self, prompt: Prompt, answers: Sequence[str]
    ) -> tuple[list[Score | None], list[Votes]]:
        prompts = JudgePrompts.of(self._settings, prompt)
        votes = await self._voter.votes(
            prompt.prompt_id,
            [prompts.grading(answer) for answer in answers],
            prompts.again,
            partial(grade_in, lowest=self._settings.lowest, highest=self._settings.highest),
        )
        return [_mean(vote.values) for vote in votes], votes

    async def _compare(
        self, prompt: Prompt, answers: Sequence[str]
    ) -> tuple[list[Score | None], list[Votes]]:
        if len(answers) == 1:
            return [Score(_ALONE, {"judge": _ALONE})], []
        prompts = JudgePrompts.of(self._settings, prompt)
        pairs = list(pairings(len(answers), prompt.prompt_id))
        orders = [order for pair in pairs for order in (pair, pair[::-1])]
        votes = await self._voter.votes(
            prompt.prompt_id,
            [prompts.comparing(answers[first], answers[second]) for first, second in orders],
            prompts.again,
            preference_in,
        )
        games = [
            Game(pair, fmean(forth.values), 1 - fmean(back.values))
            for pair, forth, back in zip(pairs, votes[::2], votes[1::2], strict=True)
            if forth.values and back.values
        ]
        return [_share(standing) for standing in standings(len(answers), games)], votes

    def _own(self) -> frozenset[str]:
        """Teachers whose answers are the judge's own, among those that there are now."""
        if self._settings.judges_own:
            return frozenset()
        judge = self._settings.teacher
        model = (judge.kind, judge.model)
        same = {info.name for info in self._describe() if (info.kind, info.model) == model}
        return frozenset(same | {judge.name})

    def _warn_where_all_are_own(self) -> None:
        teachers = {info.name for info in self._describe()}
        if teachers and teachers <= self._own() and not self._warned:
            self._warned = True
            _LOG.warning(
                "judge %r is the same model as every teacher, so no answer gets a score; name "
                "another judge, or set reward.judges_own",
                self._name,
            )


def _mean(grades: Sequence[float]) -> Score | None:
    if not grades:
        return None
    mean = fmean(grades)
    return Score(mean, {"judge": mean, "judge.votes": len(grades)})


def _share(standing: Standing | None) -> Score | None:
    if standing is None:
        return None
    return Score(
        standing.share, {"judge": standing.share, "judge.consistency": standing.consistency}
    )
