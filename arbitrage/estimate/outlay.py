"""What calls are going to take, added up from what each is likely to."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arbitrage import config
from arbitrage.estimate.forecast import Part, Range, Use

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arbitrage.estimate.census import Tally

USUAL_ANSWER = 512
"""Tokens of an answer of which nobody knows more: the pool's own guess, for its budget."""

_FIRST_TOKEN_SECONDS = 1.0
_TOKENS_A_SECOND, _SLOWLY = 50.0, 15.0  # of one answer, where nobody has timed any
_NINE_OF_TEN = 2.3  # means of an exponential distribution below which nine tenths of it lie
_RUBRIC = 350.0  # tokens that a judge is told beside the prompt and its answers
_VERDICT = 30.0  # tokens of a judge that is not asked to reason
_OPPONENTS = 5.0  # that an answer meets at most, in pairwise judging
_MILLION = 1e6
_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long a call takes: on average, and nine of ten at most."""

    mean: float
    slow: float


@dataclass(frozen=True, slots=True)
class Asked:
    """How often an arm is asked for a prompt, and what is known of its calls.

    Attributes:
        calls: expected calls for a prompt, in [0, 1].
        usd: what a call has cost; None where none was made.
        seconds: how long a call has taken; None where none was made.
    """

    arm: str
    calls: float
    usd: float | None = None
    seconds: Seconds | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """A judge of answers.

    Attributes:
        teacher: with the sampling that judging needs.
        pairwise: whether it compares answers two at a time, in both orders.
    """

    teacher: config.AnyTeacher
    pairwise: bool


class Outlay:
    """Adds up what the prompts of one context after another take.

    Attributes:
        prompts: by language.
        guessed_answers: teachers of whose answers nobody knows how long they are.
        guessed_seconds: teachers of whose calls nobody knows how long they take.

    Args:
        teachers: of the configuration.
        judges: of its reward.
        prices: by teacher; None where nobody knows it.
        counters: by teacher, the name of the tokenizer that counts for it; '' for a guess.
    """

    def __init__(
        self,
        teachers: Sequence[config.AnyTeacher],
        judges: Sequence[Judge],
        prices: Mapping[str, config.Price | None],
        counters: Mapping[str, str],
    ) -> None:
        self.prompts: Counter[str] = Counter()
        self.guessed_answers: set[str] = set()
        self.guessed_seconds: set[str] = set()
        self._judges = judges
        self._teachers = {t.name: t for t in (*teachers, *(j.teacher for j in judges))}
        self._prices = prices
        self._counters = counters
        self._uses: defaultdict[tuple[str, str], Use] = defaultdict(Use)
        self._asked: Counter[tuple[str, str]] = Counter()
        self._busy: defaultdict[str, Range] = defaultdict(Range)
        self._waits = Range()  # seconds, of all prompts together, for their slowest answers

    def add(self, language: str, tally: Tally, asked: Sequence[Asked], least: float) -> None:
        """Counts the prompts of a context in, for each of which `least` calls are sure."""
        prompts = tally.prompts
        self.prompts[language] += prompts
        calls = sum(one.calls for one in asked)
        answers, long = Range(), Range()
        lengths: list[float | None] = []
        for one in asked:
            teacher = self._teachers[one.arm]
            tokens = tally.each(self._counters[one.arm])
            call = self._call(teacher, Range(tokens.expected, tokens.most), one.usd)
            seconds = one.seconds or self._guess_seconds(teacher, call)
            often = Range(one.calls, 1.0)
            self._count(language, one.arm, prompts, often=often, call=call, seconds=seconds)
            self._uses[language, one.arm] += Use(least=least * one.calls / calls * prompts)
            answers += Range(one.calls * teacher.sampling.n, float(teacher.sampling.n))
            long += _product(call.completion_tokens, often)
            lengths.append(teacher.sampling.max_tokens)
            self._waits += Range(one.calls / calls * seconds.mean, seconds.slow).times(prompts)
        limits = [limit for limit in lengths if limit]
        longest = float(max(limits)) if len(limits) == len(lengths) else None
        for judge in self._judges:
            self._judge(judge, language, tally, answers=answers, long=long, longest=longest)

    def cells(self) -> list[Part]:
        """One teacher in one language each."""
        return [
            Part(language, name, self._asked[language, name], use)
            for (language, name), use in sorted(self._uses.items())
        ]

    def busy(self) -> Iterator[tuple[Part, str]]:
        """Each teacher with how long it takes, and by what limit."""
        for name, teacher in self._teachers.items():
            mine = [part for part in self.cells() if part.teacher == name]
            use = sum((part.use for part in mine), Use())
            tokens = use.prompt_tokens + use.completion_tokens
            within = [(self._busy[name].times(1 / teacher.max_concurrency), "at once")]
            if limit := teacher.requests_per_minute:
                within.append((use.calls.times(_MINUTE / limit), "requests a minute"))
            if limit := teacher.tokens_per_minute:
                within.append((tokens.times(_MINUTE / limit), "tokens a minute"))
            seconds, bound = max(within, key=lambda each: each[0].expected)
            mosts = [each.most for each, _ in within if each.most is not None]
            most = max(mosts) if len(mosts) == len(within) else None
            prompts = sum(part.prompts for part in mine)
            yield Part(None, name, prompts, use, Range(seconds.expected, most)), bound

    def waits(self, at_once: int) -> Range:
        """Seconds that prompts wait for answers, so many of them at once."""
        return self._waits.times(1 / at_once)

    def _call(
        self,
        teacher: config.AnyTeacher,
        asked: Range,
        usd: float | None,
        usual: float = USUAL_ANSWER,
    ) -> Use:
        """What one call uses; how long its answers are is told by what calls have cost."""
        sampling = teacher.sampling
        most = float(sampling.max_tokens * sampling.n) if sampling.max_tokens else None
        written = usual * sampling.n if most is None else min(usual * sampling.n, most)
        price = self._prices[teacher.name] or config.Price()
        if usd is not None and price.completion:
            paid = (usd * _MILLION - asked.expected * price.prompt) / price.completion
            written = max(0.0, paid if most is None else min(paid, most))
        else:
            self.guessed_answers.add(teacher.name)
            usd = (asked.expected * price.prompt + written * price.completion) / _MILLION
        bound: float | None = None
        if asked.most is not None and (most is not None or not price.completion):
            bound = (asked.most * price.prompt + (most or 0.0) * price.completion) / _MILLION
        return Use(
            calls=Range(1.0, 1.0),
            prompt_tokens=asked,
            completion_tokens=Range(written, most),
            usd=Range(usd, None if bound is None else max(bound, usd)),
        )

    def _guess_seconds(self, teacher: config.AnyTeacher, call: Use) -> Seconds:
        """How long a call takes that nobody has timed; its answers are drawn side by side."""
        if isinstance(teacher, config.ScriptedTeacher):
            return Seconds(teacher.latency_seconds, _NINE_OF_TEN * teacher.latency_seconds)
        self.guessed_seconds.add(teacher.name)
        usual = call.completion_tokens.expected / teacher.sampling.n
        most = (call.completion_tokens.most or call.completion_tokens.expected) / teacher.sampling.n
        longest = teacher.timeout_seconds
        return Seconds(
            min(_FIRST_TOKEN_SECONDS + usual / _TOKENS_A_SECOND, longest),
            min(_FIRST_TOKEN_SECONDS + most / _SLOWLY, longest),
        )

    def _judge(
        self,
        judge: Judge,
        language: str,
        tally: Tally,
        *,
        answers: Range,
        long: Range,
        longest: float | None,
    ) -> None:
        """Counts the judging of so many answers a prompt, that are so long together."""
        name = judge.teacher.name
        tokens = tally.each(self._counters[name])
        shown = 2.0 if judge.pairwise else 1.0
        # at most, all of them are as long as the longest may be
        each = Range(long.expected / answers.expected, longest)
        asked = Range(tokens.expected + _RUBRIC, tokens.most + _RUBRIC) + each.times(shown)
        calls = answers
        if judge.pairwise:
            calls = Range(_games(answers.expected), _games(answers.most or 0.0))
        call = self._call(judge.teacher, asked, None, usual=_VERDICT)
        seconds = self._guess_seconds(judge.teacher, call)
        self._count(language, name, tally.prompts, often=calls, call=call, seconds=seconds)

    def _count(
        self, language: str, name: str, prompts: int, *, often: Range, call: Use, seconds: Seconds
    ) -> None:
        """Adds calls that are made so often for a prompt."""
        times = often.times(prompts)
        self._asked[language, name] += prompts
        self._busy[name] += _product(Range(seconds.mean, seconds.slow), times)
        self._uses[language, name] += Use(
            calls=times,
            prompt_tokens=_product(call.prompt_tokens, times),
            completion_tokens=_product(call.completion_tokens, times),
            usd=_product(call.usd, times),
        )


def _product(one: Range, other: Range) -> Range:
    bounded = one.most is not None and other.most is not None
    most = one.most * other.most if bounded else None  # type: ignore[operator]
    return Range(one.expected * other.expected, most)


def _games(answers: float) -> float:
    """Comparisons of so many answers: of each pair, in both orders."""
    return answers * min(max(answers - 1.0, 0.0), _OPPONENTS)
