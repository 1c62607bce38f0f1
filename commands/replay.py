"""Off-policy evaluation from end to end: finished runs and a policy in, a report out.

Example:
    report = await replay.replay([Path("out")], config.Policy(kind="thompson", fan_out=1))
    print(report.valuation.answers["doubly_robust"].figure)
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

import router
from arbitrage import config
from arbitrage.errors import ArbitrageError
from arbitrage.language import UNDETERMINED, normalise, same
from router.encoders import open_encoder
from router.offpolicy.prompt_types import PromptTypes
from router.offpolicy.trial import Replay
from router.offpolicy.valuation import ORACLE, PLAYED, SINGLE, TARGET, evaluate, evaluate_played
from sink.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from router.offpolicy.bootstrap import Figure
    from router.offpolicy.valuation import Valuation

_NOT_FIGURES = frozenset({"estimator", "policy"})
_BLIND = frozenset({"random", "fixed", "best_of"})  # kinds that do not look at the prompt
_NO_FEATURES = config.Features(kind="none")
_NO_WARM_START = config.WarmStart()


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What finished runs tell of a policy.

    Attributes:
        policy: its kind.
        fan_out: how many teachers it asks at most.
        logged_by: prompts of the log, by the kind of the policy that decided.
        teachers: those it may ask.
        skipped: prompts in a language in which it may ask nobody.
        stopped, failed: answers to first waves that gates stopped, and that have no
            reward for another reason.
        valuation: what it is worth.
    """

    policy: str
    fan_out: int
    logged_by: Mapping[str, int]
    teachers: tuple[str, ...]
    skipped: int
    stopped: int
    failed: int
    valuation: Valuation

    @property
    def refusal(self) -> str | None:
        """Why the log tells nothing of the policy; None if it tells something."""
        answers = self.valuation.answers.values()
        if self.valuation.audited or any(answer.figure for answer in answers):
            return None
        return next(answer.refusal for answer in answers if answer.refusal)

    def plain(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return dataclasses.asdict(self)

    def parts(self) -> Iterator[Table | str]:
        """The same for a terminal: tables, and a line for each thing to know of them."""
        digits = _digits(self.valuation.own)
        yield self._answers(digits)
        for refusal, names in self._refusals().items():
            yield f"{', '.join(names)}: refused, {refusal}"
        yield from self._notes(digits)
        if self.valuation.audited:
            yield self._audited(digits)

    @property
    def _several(self) -> bool:
        return PLAYED in self.valuation.answers

    def _answers(self, digits: int) -> Table:
        asks = f"up to {self.fan_out} teachers" if self._several else "one teacher"
        table = _table_of(
            f"what policy {self.policy!r} would get by asking {asks} a prompt",
            *("estimator", "value", "95% interval", "ahead of the log", "off on audits"),
        )
        for name, answer in self.valuation.answers.items():
            if answer.figure:
                table.add_row(
                    _words(name),
                    f"{answer.figure.value:.{digits}f}",
                    _interval(answer.figure, digits),
                    _interval(answer.gain, digits, sign="+"),
                    _in_errors(answer.off, digits),
                )
            else:
                table.add_row(_words(name), "refused")
        return table

    def _refusals(self) -> dict[str, list[str]]:
        refusals: dict[str, list[str]] = {}
        for name, answer in self.valuation.answers.items():
            if answer.refusal:
                refusals.setdefault(answer.refusal, []).append(_words(name))
        return refusals

    def _notes(self, digits: int) -> Iterator[str]:
        valuation = self.valuation
        logged_by = ", ".join(f"{kind} ({count:,})" for kind, count in self.logged_by.items())
        yield f"prompts of the log, by its policy: {logged_by}"
        yield f"teachers that may be asked: {', '.join(self.teachers)}"
        if valuation.own:
            whose = "winners" if self._several else "first answers"
            own = f"{valuation.own.value:.{digits}f} ({_interval(valuation.own, digits)})"
            yield f"the log's own {whose}: {own}"
        if valuation.effective is not None and valuation.weight:
            yield (
                f"{valuation.effective:,.0f} effective prompts of {valuation.prompts:,}; "
                f"mean weight {valuation.weight.value:.3f}, ideally 1"
            )
        if valuation.calls:
            yield "calls a prompt: {:.2f}; in the log {:.2f}".format(*valuation.calls)
        if self.stopped or self.failed:
            yield (
                f"{self.stopped:,} answers were stopped by gates and count as poor ones; "
                f"{self.failed:,} failed or have no reward and are left out"
            )
        if self.skipped:
            yield f"{self.skipped:,} prompts are left out: no teacher is for their language"

    def _audited(self, digits: int) -> Table:
        valuation = self.valuation
        table = _table_of(
            f"the truth on the {valuation.audits:,} prompts on which everybody was asked at once",
            *("policy", "value", "95% interval", f"{self.policy} is ahead by"),
        )
        names = {
            TARGET: self.policy,
            SINGLE: f"always {valuation.single}, best in hindsight",
            ORACLE: "the best of all",
        }
        for name, found in valuation.audited.items():
            table.add_row(
                names[name],
                f"{found.value:.{digits}f}",
                _interval(found, digits),
                _interval(valuation.ahead.get(name), digits, sign="+"),
            )
        return table


def target(
    policy: config.Policy, *, kind: Any, fan_out: int, seed: int | None = None
) -> config.Policy:
    """A configuration's policy, but of another kind, fan-out and perhaps seed.

    Of a fan-out that is a table, the waves and the latency stay where it asks several.
    """
    chosen: int | config.FanOut = fan_out
    if fan_out > 1 and isinstance(policy.fan_out, config.FanOut):
        least = min(policy.fan_out.min, fan_out)
        chosen = dataclasses.replace(policy.fan_out, min=least, max=fan_out)
    return dataclasses.replace(
        policy, kind=kind, fan_out=chosen, seed=policy.seed if seed is None else seed
    )


async def replay(
    logs: Sequence[Path], policy: config.Policy, teachers: Sequence[config.AnyTeacher] = ()
) -> Report:
    """Leads a policy through finished runs and says what it would have got.

    Args:
        logs: output folders of runs.
        policy: the target, which begins knowing nothing. Its audits are left out, and so
            are budgets: what the log has spent is not what the target would spend.
        teachers: those it may ask, each in its languages; by default, all that were asked
            in the log.

    Raises:
        ConfigError: the policy or its encoder cannot be made.
        SinkError: a log cannot be read.
        ArbitrageError: no teacher may be asked in any language of the log.
    """
    policy = dataclasses.replace(
        policy,
        audit_rate=0.0,
        budget_usd=None,
        horizon=None,
        usd_per_prompt=None,
        features=_NO_FEATURES if policy.kind in _BLIND else policy.features,
        warm_start=_NO_WARM_START,
    )
    target = router.build(policy)
    log = Log(logs)
    pool = _Pool(teachers, log.teachers)
    arms = tuple(dict.fromkeys((*pool.teachers, *log.teachers)))
    several = policy.waves.max > 1 or policy.kind == "best_of"
    types = PromptTypes(policy.features.dimensions, policy.features.types)
    course = Replay(target, arms, pool.available, several=several, types=types)
    logged_by = await _follow(course, log, policy.features)
    trial = course.trial()
    if not len(trial.prompt):
        raise ArbitrageError("no teacher is for any of the log's languages; see teachers.languages")
    valuation = (evaluate_played if several else evaluate)(trial, seed=policy.seed)
    return Report(
        policy=policy.kind,
        fan_out=len(pool.teachers) if policy.kind == "best_of" else policy.waves.max,
        logged_by=logged_by,
        teachers=pool.teachers,
        skipped=course.skipped,
        stopped=trial.stopped,
        failed=trial.failed,
        valuation=valuation,
    )


async def _follow(course: Replay, log: Log, features: config.Features) -> Mapping[str, int]:
    """Leads the target along the log; how many prompts each kind of policy has decided."""
    logged_by: Counter[str] = Counter()
    encoder = await open_encoder(features)
    try:
        for sample in log:
            encoded = await encoder.encode(sample.prompt.text) if encoder else None
            course.add(sample, encoded)
            logged_by[sample.decision.policy] += 1
    finally:
        if encoder:
            await encoder.close()
    return dict(logged_by.most_common())


class _Pool:
    """Whom a target may ask in a language."""

    def __init__(self, teachers: Sequence[config.AnyTeacher], logged: tuple[str, ...]) -> None:
        self._languages = {t.name: {normalise(tag) for tag in t.languages} for t in teachers}
        self.teachers = tuple(self._languages) or logged

    def available(self, language: str) -> list[str]:
        """Those whose languages include it, in the configuration's order."""
        return [arm for arm in self.teachers if self._speaks(arm, language)]

    def _speaks(self, arm: str, language: str) -> bool:
        languages = self._languages.get(arm)
        if not languages or language == UNDETERMINED:
            return True
        return any(same(tag, language) for tag in languages)


def _table_of(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in columns:
        justify: Literal["left", "right"] = "left" if name in _NOT_FIGURES else "right"
        table.add_column(name, justify=justify)
    return table


def _digits(own: Figure | None) -> int:
    """Decimals that show the first digit of a standard error."""
    if own is None or not own.standard_error > 0.0:
        return 3
    return min(max(-math.floor(math.log10(own.standard_error)), 0), 9)


def _words(name: str) -> str:
    return name.upper() if name.endswith("ips") else name.replace("_", " ")


def _interval(figure: Figure | None, digits: int, *, sign: str = "") -> str:
    return f"{figure.low:{sign}.{digits}f} to {figure.high:{sign}.{digits}f}" if figure else ""


def _in_errors(figure: Figure | None, digits: int) -> str:
    """A difference, and how many standard errors that is."""
    if figure is None:
        return ""
    error = figure.standard_error
    errors = f" ({figure.value / error:+.1f} SE)" if error > 0.0 else ""
    return f"{figure.value:+.{digits}f}{errors}"
