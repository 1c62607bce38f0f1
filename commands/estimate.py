"""`arbitrage estimate`: what a run is going to take, before anything is spent.

The prompts are read once and counted, by language and domain, with their tokens; what the
policy does with such prompts it is asked once for each. No teacher is called.

Example:
    settings = config.load("config.toml")
    found = await estimate.of_files(settings, ["prompts.jsonl"])
    print(found.total.usd.expected, found.seconds.expected)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import router
from arbitrage import config, prompts
from arbitrage.engine import JOB
from arbitrage.errors import ConfigError
from arbitrage.estimate.census import BY_SCRIPT, Census
from arbitrage.estimate.forecast import Estimate, Part, Range, Use
from arbitrage.estimate.outlay import USUAL_ANSWER, Judge, Outlay
from arbitrage.journal import answered
from arbitrage.language import UNDETERMINED, normalise, same
from arbitrage.types import Context
from reward.judge import judge_teacher
from router.outlook import Outlook
from router.snapshots import keeper, snapshot
from sink.layout import Layout
from teachers.tokens import TokenCounter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from arbitrage.prompts import Rejected
    from arbitrage.types import Prompt
    from router.explain import Explicable

_HERE = frozenset({"llama_cpp", "vllm", "scripted"})  # kinds that run in this process, unpaid
_MILLION = 1_000_000
_SOME = 0.01  # share of stopped answers that is worth a word


async def of_files(
    settings: config.Config, sources: Sequence[str], output: Path | None = None
) -> Estimate:
    """Says what `arbitrage run` takes.

    Args:
        settings: of the run.
        sources: files and folders of prompts; `-` for standard input.
        output: its folder, for what is left of a run that was begun.

    Raises:
        ConfigError, SnapshotError: as of `estimate`.
    """
    done = None
    if output:
        settings = replace(settings, sink=replace(settings.sink, path=output))
        done = answered(Layout(output).journal, JOB)
    return await estimate(settings, prompts.read(sources), done=done)


async def estimate(
    settings: config.Config,
    read: Iterable[Prompt | Rejected],
    *,
    policy: Explicable | None = None,
    done: Callable[[Sequence[Prompt]], Sequence[bool]] | None = None,
    spent_usd: float = 0.0,
) -> Estimate:
    """Says what a run over these prompts takes.

    Args:
        settings: of the run.
        read: the prompts; each is counted and forgotten.
        policy: what decides; by default `learned(settings)`.
        done: tells of some prompts, as they came, which are answered already.
        spent_usd: what earlier runs on the same sink have taken off the budget.

    Raises:
        ConfigError: a source of prompts, or the tokenizer of a teacher, cannot be read.
        SnapshotError: what the policy has learned cannot be read.
    """
    policy = policy or learned(settings)
    judges = [Judge(judge_teacher(j), j.pairwise) for j in config.judges(settings.reward)]
    everyone = [*settings.teachers, *(judge.teacher for judge in judges)]
    counters = {teacher.name: _tokenizer(teacher) for teacher in everyone}
    tokenizers = {
        name: await TokenCounter.load(name, f"teacher {teacher!r}")
        for teacher, name in counters.items()
        if name != BY_SCRIPT
    }
    census = Census(_Detector(), tokenizers, done)
    await census.take(read)
    prices = {teacher.name: _price(teacher) for teacher in everyone}
    outlay = Outlay(settings.teachers, judges, prices, counters)
    unserved, stopped = 0, 0.0
    for (language, domain), tally in census.tallies.items():
        arms = [t.name for t in settings.teachers if _may_ask(t, language, settings.sink)]
        if not arms:
            unserved += tally.prompts
            continue
        outlook = Outlook.of(policy, settings.policy, Context(language, domain), arms)
        stopped = max(stopped, outlook.stopped)
        outlay.add(language, tally, outlook.asked, outlook.least)
    busy = list(outlay.busy())
    seconds, slowest = _time(busy, outlay.waits(settings.job.max_in_flight))
    cells = outlay.cells()
    budget = settings.policy.budget_usd
    return Estimate(
        policy=policy.kind,
        learned_from=policy.version,
        prompts=sum(outlay.prompts.values()),
        done=census.done,
        rejected=census.rejected,
        unserved=unserved,
        cells=cells,
        languages=[
            Part(tag, None, count, sum((c.use for c in cells if c.language == tag), Use()))
            for tag, count in sorted(outlay.prompts.items())
        ],
        teachers=[part for part, _ in busy],
        total=sum((cell.use for cell in cells), Use()),
        seconds=seconds,
        slowest=slowest,
        budget_usd=None if budget is None else max(0.0, budget - spent_usd),
        assumptions=tuple(
            _assumptions(
                settings,
                judges=judges,
                outlay=outlay,
                prices=prices,
                counters=counters,
                stopped=stopped,
            )
        ),
    )


def learned(settings: config.Config) -> Explicable:
    """The policy of a configuration, with what it has learned in its folder, or starts from.

    Of `policy.warm_start` only the snapshot is taken: it tells of costs, too.

    Raises:
        ConfigError: the policy cannot be made.
        SnapshotError: its state cannot be read.
    """
    policy = cast("Explicable", router.build(settings.policy))
    file = settings.sink.path / keeper.FILE
    begins = file if file.exists() else settings.policy.warm_start.snapshot
    if begins:
        snapshot.restore(begins, policy)
    return policy


class _Detector:
    """The engine's detector, whose model is loaded when the first prompt needs it."""

    def __init__(self) -> None:
        self._detect: Callable[[str], str] | None = None

    def __call__(self, text: str) -> str:
        if self._detect is None:
            from reward.language import Detector  # noqa: PLC0415 - takes a second

            self._detect = Detector().detect
        return self._detect(text)


def _may_ask(teacher: config.AnyTeacher, language: str, sink: config.Sink) -> bool:
    """Whether a teacher may be asked in a language, as the pool has it."""
    if sink.only_trainable and not teacher.trainable:
        return False
    if not teacher.languages or language == UNDETERMINED:
        return True
    return any(same(normalise(tag), language) for tag in teacher.languages)


def _tokenizer(teacher: config.AnyTeacher) -> str:
    """The tokenizer of a teacher that lies on this disk; the name of the guess without one."""
    match teacher:
        case config.OpenAITeacher(tokenizer=str(name)):
            path = Path(name).expanduser()
        case config.VLLMTeacher(model=name):
            path = Path(name).expanduser() / "tokenizer.json"
        case _:
            return BY_SCRIPT
    return str(path) if path.exists() else BY_SCRIPT


def _price(teacher: config.AnyTeacher) -> config.Price | None:
    """The price in the configuration, or in LiteLLM's list; None where neither has one."""
    if teacher.price_per_million or not isinstance(teacher, config.LiteLLMTeacher):
        return teacher.price_per_million
    try:
        from teachers.litellm_library import load  # noqa: PLC0415 - takes seconds

        known: Mapping[str, Mapping[str, Any]] = load().model_cost
    except (ImportError, ConfigError):
        return None
    for name in (teacher.model, teacher.model.partition("/")[2]):
        entry = known.get(name, {})
        if {"input_cost_per_token", "output_cost_per_token"} <= entry.keys():
            costs = (entry[f"{way}_cost_per_token"] * _MILLION for way in ("input", "output"))
            return config.Price(*(round(cost, 9) for cost in costs))
    return None


def _time(busy: Sequence[tuple[Part, str]], waits: Range) -> tuple[Range, str]:
    """How long the run takes, and what that is set by: all teachers work side by side."""
    seconds, slowest = waits, "job.max_in_flight"
    mosts = [waits.most]
    for part, bound in busy:
        mine = part.seconds or Range()
        mosts.append(mine.most)
        if mine.expected > seconds.expected:
            seconds, slowest = mine, f"teacher {part.teacher!r} ({bound})"
    bounds = [most for most in mosts if most is not None]
    return Range(seconds.expected, max(bounds) if len(bounds) == len(mosts) else None), slowest


def _assumptions(
    settings: config.Config,
    *,
    judges: Sequence[Judge],
    outlay: Outlay,
    prices: Mapping[str, config.Price | None],
    counters: Mapping[str, str],
    stopped: float,
) -> Iterator[str]:
    """What the figures rest on."""
    yield (
        "expected calls: each teacher's present share by the policy, audits included; at most: "
        "every teacher once for every prompt, as when gates stop all others' answers"
    )
    if settings.policy.waves.waves > 1:
        yield "half of what later waves may ask is asked"
    if stopped > _SOME:
        yield f"gates stop answers as often as they did, in one language {stopped:.0%}"
    guessed = [name for name, counter in counters.items() if counter == BY_SCRIPT]
    if guessed:
        yield (
            f"tokens of prompts are guessed from their scripts ({_named(guessed)}): tokenizers "
            "differ by a third, in Indic scripts by a factor of three; models with a small English "
            "vocabulary may need twice the most"
        )
    if outlay.guessed_answers:
        yield (
            f"answers have max_tokens, or {USUAL_ANSWER} tokens if that is less or not set "
            f"({_named(outlay.guessed_answers)})"
        )
    unbounded = [t.name for t in settings.teachers if not t.sampling.max_tokens]
    unbounded += [j.teacher.name for j in judges if not j.teacher.sampling.max_tokens]
    if unbounded:
        yield f"nothing bounds their answers: set sampling.max_tokens ({_named(unbounded)})"
    here = {t.name for t in settings.teachers if t.kind in _HERE}
    free = [name for name, price in prices.items() if price is None and name not in here]
    if free:
        yield f"no price is known, so it counts as free ({_named(free)})"
    if outlay.guessed_seconds:
        yield (
            "a call takes 1 second and 1 for every 50 tokens of its answer, slowly for every 15 "
            f"({_named(outlay.guessed_seconds)})"
        )
    if len(here) > 1:
        yield f"teachers in this process do not slow each other down ({_named(here)})"
    yield (
        "scoring on this machine takes no time, failed calls and second ones beside slow ones "
        "(hedge_percentile) cost nothing, and no answer is in a cache"
    )


def _named(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
