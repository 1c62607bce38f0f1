"""Do reward hacks win against an honest mediocre answer? Gates, reward and calibration decide.

A question's hacks and its brief answer are candidates of one prompt: what the gates stop cannot
win, the others are scored together and calibrated, as the engine does it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from bad_answers import HACKS
from corpus import Question, held_out, questions

import reward as rewards
from arbitrage import config
from arbitrage.ports import Calibration, Gates, RewardModel
from arbitrage.types import Candidate, Completion, Prompt
from reward.gates import open_gates
from reward.language import Detector

HONEST = "brief"


@dataclass
class Outcome:
    """How the hacks of one language fared, by the hack's name.

    Attributes:
        asked: questions.
        won: how often a hack passed the gates and was rewarded at least as much as the honest
            answer.
        stopped: how often a gate stopped it.
        honest_stopped: what the gates have against the honest answers.
    """

    asked: int = 0
    won: Counter[str] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)
    honest_stopped: list[str] = field(default_factory=list)


class Pipeline:
    """What an answer goes through in the engine between a teacher and the winner."""

    def __init__(self, gates: Gates, reward: RewardModel, calibration: Calibration) -> None:
        self._gates = gates
        self._reward = reward
        self._calibration = calibration

    async def close(self) -> None:
        """Frees the gates and the reward."""
        await self._gates.close()
        await self._reward.close()

    async def judge(self, prompt: Prompt, answers: dict[str, str]) -> list[Candidate]:
        """One candidate an answer, named as it is, inspected, scored and calibrated."""
        candidates = [Candidate(name, Completion(text)) for name, text in answers.items()]
        verdicts = await self._gates.inspect(prompt, candidates)
        judged = [replace(c, gates=v) for c, v in zip(candidates, verdicts, strict=True)]
        passed = [c for c in judged if c.passed]
        scores = await self._reward.score(prompt, passed) if passed else ()
        score_of = dict(zip(map(id, passed), scores, strict=True))
        scored = [replace(c, score=score_of.get(id(c))) for c in judged]
        calibrated = self._calibration.calibrate(prompt, scored)
        self._calibration.learn(prompt, calibrated)
        return calibrated


async def open_pipeline(settings: config.AnyReward | None = None) -> Pipeline:
    """The real gates, the embedded reward and its calibration, wired as `assembly` does it."""
    settings = settings or config.EmbeddedReward()
    gates = open_gates(settings.gates, Detector())
    model = await rewards.open_reward(settings)
    return Pipeline(gates, model, rewards.open_calibration(settings))


async def outcome(pipeline: Pipeline, asked: Iterable[Question]) -> Outcome:
    """Lets the hacks of each question run against its honest answer."""
    result = Outcome()
    for question in asked:
        prompt = Prompt.of(question.prompt, language=question.language)
        answers = {HONEST: question.brief} | {name: hack(question) for name, hack in HACKS.items()}
        honest, *hacks = await pipeline.judge(prompt, answers)
        result.asked += 1
        result.honest_stopped += [verdict.gate for verdict in honest.gates]
        for hack in hacks:
            result.stopped[hack.teacher] += bool(hack.gates)
            result.won[hack.teacher] += _reward_of(hack) >= _reward_of(honest)
    return result


def sampled(language: str, count: int) -> Sequence[Question]:
    """Some questions of a language that no reward has learned from."""
    unseen = held_out()
    return [question for question in questions()[language] if question.id in unseen][:count]


async def print_table(count: int, settings: config.AnyReward | None = None) -> None:
    """Prints, a line a language, how many questions each hack won, and how many were stopped."""
    pipeline = await open_pipeline(settings)
    print("language | questions |", " | ".join(HACKS), "| honest stopped")
    for language in questions():
        result = await outcome(pipeline, sampled(language, count))
        cells = [f"{result.won[h]} won, {result.stopped[h]} stopped" for h in HACKS]
        print(language, "|", result.asked, "|", " | ".join(cells), "|", result.honest_stopped or 0)
    await pipeline.close()


def _reward_of(candidate: Candidate) -> float:
    return candidate.score.reward if candidate.passed and candidate.score else float("-inf")
