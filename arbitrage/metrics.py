"""Prometheus metrics of the engine: one observer, its own registry, bounded labels."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric

from arbitrage.events import (
    Accepted,
    Answered,
    Batched,
    Called,
    Corrected,
    Event,
    Judged,
    Left,
    Routed,
    Shifted,
    Stored,
)
from arbitrage.language import parent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from arbitrage.ports import Pool
    from arbitrage.types import Candidate, Decision, Prompt, Sample

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_REWARD = (-10, -5, -2, -1, -0.5, -0.2, 0, 0.2, 0.5, 1, 2, 5, 10)
_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
_FAN_OUT = (1, 2, 3, 4, 6, 8, 12, 16)
_REGRET_MEMORY = 0.98
OTHER = "other"


class Metrics:
    """Counts what the engine tells, under the names that dashboards rely on.

    Attributes:
        registry: holds every collector of the service; expose this one.
        started: when it began to count, in seconds since 1970.
    """

    def __init__(
        self, languages: Collection[str], sink_format: str, now: Callable[[], float] = time
    ) -> None:
        """Starts at zero.

        Args:
            languages: tags that may become label values; others count as `other`.
            sink_format: label of the samples made durable.
            now: seconds since 1970.
        """
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="arbitrage", registry=self.registry)
        self._now = now
        self.started = now()
        self._languages = frozenset(languages)
        self._sink_format = sink_format
        self._regret: dict[str, float] = {}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"arbitrage_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"arbitrage_{name}", text, labels, registry=self.registry)

        def histogram(
            name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS
        ) -> Histogram:
            return Histogram(
                f"arbitrage_{name}", text, labels, registry=self.registry, buckets=buckets
            )

        self.requests = counter("requests", "RPCs answered", "method", "code")
        self.request_seconds = histogram("request_seconds", "Time an RPC took", "method")
        self._in_flight = gauge("in_flight_prompts", "Prompts in the engine")
        self._teacher_requests = counter(
            "teacher_requests", "Calls to teachers by how they ended", "teacher", "outcome"
        )
        self._teacher_seconds = histogram("teacher_seconds", "Time a call took", "teacher")
        self._tokens = counter("teacher_tokens", "Tokens billed", "teacher", "direction")
        self._cost = counter("teacher_cost_usd", "Cost of calls", "teacher")
        self._routes = counter("routes", "Arms chosen", "language", "teacher")
        self._wins = counter("wins", "Samples won", "language", "teacher")
        self._reward = histogram(
            "reward", "Rewards of candidates", "language", "teacher", buckets=_REWARD
        )
        # a histogram with buckets below 0 has no sum: a counter never falls, so there are two
        self._gained = counter("reward_gained", "Rewards above 0, summed", "language", "teacher")
        self._lost = counter("reward_lost", "Rewards below 0, summed", "language", "teacher")
        self._regret_estimate = gauge(
            "regret_estimate",
            "Recent mean of best reward seen minus the mean reward of the arms asked",
            "language",
        )
        self._fan_out = histogram("fan_out", "Arms asked a prompt", "language", buckets=_FAN_OUT)
        self._gate_rejections = counter(
            "gate_rejections", "Answers stopped by a gate", "gate", "language"
        )
        self._reward_seconds = histogram("reward_seconds", "Time to score a prompt's candidates")
        self._batch_tokens = histogram(
            "reward_batch_tokens", "Tokens in a batch of the reward model", buckets=_TOKENS
        )
        self._shift = gauge(
            "reward_shift",
            "Last alarm: by how many standard deviations the scores have moved",
            "language",
        )
        self._shifted_at = gauge(
            "reward_shift_timestamp_seconds", "When the last alarm was, since 1970", "language"
        )
        self._policy_updates = counter("policy_updates", "Samples and feedback learned", "policy")
        self._samples = counter("sink_samples", "Samples made durable", "format")

    def observe(self, event: Event) -> None:
        """Takes one event of the engine."""
        match event:
            case Accepted():
                self._in_flight.inc()
            case Routed(prompt, wave):
                self._routed(prompt, wave)
            case Called(teacher, outcome, seconds):
                self._teacher_requests.labels(teacher, outcome).inc()
                self._teacher_seconds.labels(teacher).observe(seconds)
            case Answered(_, candidate):
                self._answered(candidate)
            case Judged(prompt, candidates, reward_seconds):
                self._judged(prompt, candidates, reward_seconds)
            case Batched() | Shifted():
                self._scored(event)
            case Stored(sample):
                self._stored(sample)
            case Corrected(policy):
                self._policy_updates.labels(policy).inc()
            case Left():
                self._in_flight.dec()

    def _routed(self, prompt: Prompt, wave: Decision) -> None:
        for arm in wave.arms:
            self._routes.labels(self._language(prompt), arm).inc()

    def _scored(self, event: Batched | Shifted) -> None:
        match event:
            case Batched(tokens):
                self._batch_tokens.observe(tokens)
            case Shifted(language, shift):
                self._shift.labels(self._label(language)).set(shift)
                self._shifted_at.labels(self._label(language)).set(self._now())

    def watch_pool(self, pool: Pool) -> None:
        """Exposes at each scrape which teachers may be asked."""
        self.registry.register(_PoolCollector(pool))

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Exposes a gauge whose value is read at each scrape."""
        Gauge(f"arbitrage_{name}", text, registry=self.registry).set_function(read)

    def _language(self, prompt: Prompt) -> str:
        return self._label(prompt.language)

    def _label(self, language: str) -> str:
        for tag in (language, parent(language)):
            if tag in self._languages:
                return tag
        return OTHER

    def _answered(self, candidate: Candidate) -> None:
        teacher = candidate.teacher
        self._cost.labels(teacher).inc(candidate.cost_usd)
        if candidate.completion and not candidate.completion.cached:
            self._tokens.labels(teacher, "prompt").inc(candidate.completion.prompt_tokens or 0)
            self._tokens.labels(teacher, "completion").inc(
                candidate.completion.completion_tokens or 0
            )

    def _judged(
        self, prompt: Prompt, candidates: Iterable[Candidate], reward_seconds: float
    ) -> None:
        language = self._language(prompt)
        if reward_seconds:
            self._reward_seconds.observe(reward_seconds)
        for candidate in candidates:
            for verdict in candidate.gates:
                self._gate_rejections.labels(verdict.gate, language).inc()
            if candidate.score:
                labels, reward = (language, candidate.teacher), candidate.score.reward
                self._reward.labels(*labels).observe(reward)
                # both, so that both exist, and one can be taken from the other
                self._gained.labels(*labels).inc(max(reward, 0.0))
                self._lost.labels(*labels).inc(max(-reward, 0.0))

    def _stored(self, sample: Sample) -> None:
        language = self._language(sample.prompt)
        self._samples.labels(self._sink_format).inc()
        if sample.learned:
            self._policy_updates.labels(sample.decision.policy).inc()
        self._fan_out.labels(language).observe(len(sample.decision.arms))
        if sample.winner and sample.winner.advantage is not None:
            self._wins.labels(language, sample.winner.teacher).inc()
            recent = self._regret.get(language, sample.winner.advantage)
            recent += (1 - _REGRET_MEMORY) * (sample.winner.advantage - recent)
            self._regret[language] = recent
            self._regret_estimate.labels(language).set(recent)


class _PoolCollector:
    """Availability changes with the clock, so it is asked for, not told."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def describe(self) -> Iterable[Metric]:
        yield self._empty()

    def collect(self) -> Iterable[Metric]:
        available = self._empty()
        for teacher in self._pool.describe():
            available.add_metric([teacher.name], float(teacher.available))
        yield available

    @staticmethod
    def _empty() -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "arbitrage_teacher_available",
            "Whether the teacher may be asked (1) or not (0)",
            labels=["teacher"],
        )
