"""The console: a page of what an operator looks at, and the figures behind it, as JSON.

Both come from the collectors that Prometheus scrapes, and so tell nothing that these do not:
no prompt, no answer, no secret. Figures count from the server's start; the page takes one from
another to tell of the last minute.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import defaultdict
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from arbitrage.metrics import Metrics

_PAGE = Path(__file__).with_name("page.html").read_text("utf-8")
_FRESH_SECONDS = 0.5  # however many look
_FAILED = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED", "DATA_LOSS"})
_NOT_FAILED = frozenset({"ok", "cancelled"})
_BY_TEACHER = {
    "asked": "routes_total",
    "won": "wins_total",
    "scored": "reward_count",
    "gained": "reward_gained_total",
    "lost": "reward_lost_total",
}
_NAMES = (
    *_BY_TEACHER.values(),
    *("requests_total", "request_seconds_bucket", "in_flight_prompts", "reward_queue_depth"),
    *("sink_samples_total", "sink_pending_samples", "budget_usd", "budget_remaining_usd"),
    *("teacher_available", "teacher_requests_total", "teacher_seconds_bucket"),
    *("teacher_cost_usd_total", "teacher_tokens_total"),
    *("fan_out_count", "regret_estimate", "gate_rejections_total"),
)


class Console:
    """Serves `/` and `/state`.

    Args:
        metrics: what is shown.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._told, self._told_at = b"", -_FRESH_SECONDS

    def join(self, app: web.Application) -> None:
        """Adds its pages to a port."""
        app.router.add_get("/", self._page)
        app.router.add_get("/state", self._state)

    async def _page(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text=_PAGE, content_type="text/html", headers=_HEADERS)

    async def _state(self, request: web.Request) -> web.Response:
        del request
        if monotonic() - self._told_at >= _FRESH_SECONDS:
            self._told, self._told_at = orjson.dumps(state(self._metrics)), monotonic()
        headers = {"Cache-Control": "no-store"}
        return web.Response(body=self._told, content_type="application/json", headers=headers)


def state(metrics: Metrics) -> Mapping[str, Any]:
    """What the page shows, as plain values; what is not known is None or NaN.

    `latency` of calls and of teachers are counts of a histogram by upper bound in seconds,
    each with those below it, the last of them without a bound.
    """
    figures = _Figures(metrics)
    return {
        "now": time(),
        "started": metrics.started,
        "calls": {
            "answered": figures.sum("requests_total"),
            "failed": figures.sum("requests_total", code=_FAILED),
            "refused": figures.sum("requests_total", code={"RESOURCE_EXHAUSTED"}),
            "latency": figures.buckets("request_seconds_bucket", method={"Complete"}),
        },
        "in_flight": figures.one("in_flight_prompts"),
        "reward_queue": figures.one("reward_queue_depth"),
        "samples": figures.sum("sink_samples_total"),
        "pending": figures.one("sink_pending_samples"),
        "cost_usd": figures.sum("teacher_cost_usd_total"),
        "budget_usd": figures.one("budget_usd"),
        "budget_remaining_usd": figures.one("budget_remaining_usd"),
        "teachers": [_teacher(figures, name) for name in figures.teachers],
        "languages": [_language(figures, tag) for tag in figures.languages],
    }


def _teacher(figures: _Figures, name: str) -> Mapping[str, Any]:
    its = {"teacher": {name}}
    calls = figures.sum("teacher_requests_total", **its)
    failed = figures.sum("teacher_requests_total", outcome=figures.failures, **its)
    return {
        "name": name,
        "available": figures.one("teacher_available", **its),
        "calls": calls,
        "failed": failed,
        "latency": figures.buckets("teacher_seconds_bucket", **its),
        "tokens": figures.sum("teacher_tokens_total", **its),
        "cost_usd": figures.sum("teacher_cost_usd_total", **its),
    }


def _language(figures: _Figures, tag: str) -> Mapping[str, Any]:
    its = {"language": {tag}}
    return {
        "language": tag,
        "prompts": figures.sum("fan_out_count", **its),
        "regret": figures.one("regret_estimate", **its),
        "stopped": figures.sum("gate_rejections_total", **its),
        "teachers": figures.cells[tag],
    }


class _Figures:
    """The collectors' values at one moment.

    Attributes:
        cells: by language and teacher, under the keys of `_BY_TEACHER`.
    """

    def __init__(self, metrics: Metrics) -> None:
        names = [f"arbitrage_{name}" for name in _NAMES]
        self._found: dict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
        for family in metrics.registry.restricted_registry(names).collect():
            for sample in family.samples:
                self._found[sample.name].append((sample.labels, sample.value))
        self.cells: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
        for key, name in _BY_TEACHER.items():
            for labels, value in self.of(name):
                of_language = self.cells[labels["language"]]
                cell = of_language.setdefault(labels["teacher"], dict.fromkeys(_BY_TEACHER, 0.0))
                cell[key] = value

    @property
    def teachers(self) -> list[str]:
        """The pool in its order, then judges and those that have left it."""
        known = ("teacher_available", "teacher_requests_total")
        return list(dict.fromkeys(labels["teacher"] for n in known for labels, _ in self.of(n)))

    @property
    def languages(self) -> list[str]:
        """Those in which somebody was asked, the most frequent first."""
        prompts = {labels["language"]: value for labels, value in self.of("fan_out_count")}
        return sorted(self.cells, key=lambda tag: (-prompts.get(tag, 0.0), tag))

    @property
    def failures(self) -> frozenset[str]:
        """Outcomes of calls that failed."""
        found = {labels["outcome"] for labels, _ in self.of("teacher_requests_total")}
        return frozenset(found) - _NOT_FAILED

    def of(
        self, name: str, **wanted: frozenset[str] | set[str]
    ) -> Iterator[tuple[Mapping[str, str], float]]:
        """The values of a name whose labels are among those wanted."""
        for labels, value in self._found[f"arbitrage_{name}"]:
            if all(labels[label] in values for label, values in wanted.items()):
                yield labels, value

    def sum(self, name: str, **wanted: frozenset[str] | set[str]) -> float:
        """Their sum."""
        return sum(value for _, value in self.of(name, **wanted))

    def one(self, name: str, **wanted: frozenset[str] | set[str]) -> float | None:
        """The only one; None where there is none."""
        return next((value for _, value in self.of(name, **wanted)), None)

    def buckets(self, name: str, **wanted: frozenset[str] | set[str]) -> list[list[float | None]]:
        """Upper bounds and counts of a histogram; the last bound is None."""
        bounds = ((float(labels["le"]), value) for labels, value in self.of(name, **wanted))
        return [[None if bound == float("inf") else bound, value] for bound, value in bounds]


def _digest_of(element: str) -> str:
    """What a policy names the page's only script or style by."""
    found = re.search(rf"<{element}>(.*?)</{element}>", _PAGE, re.DOTALL)
    text = found[1] if found else ""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "connect-src 'self'",
            "img-src data:",
            f"script-src 'sha256-{_digest_of('script')}'",
            f"style-src 'sha256-{_digest_of('style')}'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
