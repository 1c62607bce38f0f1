"""Reads the mock teacher's script: TOML or JSON in, frozen values out.

The keys are described in `mock_teacher.py`. Whatever is wrong becomes one
`ScriptError` that names the key.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mock_script import DEFAULT, Fault, Latency, Model, Script

if TYPE_CHECKING:
    from pathlib import Path

_RETRY = ("retry_after", "retry_after_as")
_KEYS_OF: Mapping[str, tuple[str, ...]] = {
    "rate_limit": _RETRY,
    "error": (),
    "overloaded": _RETRY,
    "hang": (),
    "reset": (),
    "half_body": (),
    "bad_json": (),
    "wrong_type": (),
    "drip": ("seconds",),
    "empty_choices": (),
    "huge": ("megabytes",),
    "unauthorized": (),
}
_DEVIATIONS = {"p95": 1.6448536269514722, "p99": 2.3263478740408408}
_ROUNDING = 1e-9
_LARGEST = 1e12
_REASONING = ("none", "reasoning_content", "think")
_LATENCIES = ("constant", "exponential", "lognormal")


class ScriptError(ValueError):
    """A script holds something wrong: which key, and what it should be."""


def load(path: Path, base: Script) -> Script:
    """Reads a `.toml` or `.json` script; what it leaves out is as in `base`.

    Raises:
        ScriptError: it cannot be read, or something in it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return parse(json.loads(text), base)
        import tomllib  # noqa: PLC0415 - most runs need none, and the start is to be quick

        return parse(tomllib.loads(text), base)
    except OSError as error:
        raise ScriptError(f"{path}: cannot be read: {error.strerror}") from None
    except ScriptError as error:
        raise ScriptError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ScriptError(f"{path}: is not {path.suffix[1:] or 'toml'}: {error}") from None


def parse(data: object, base: Script) -> Script:
    """Checks a script; what it leaves out is as in `base`.

    Raises:
        ScriptError: something in it is wrong.
    """
    table = _Table(data, "script")
    seed = table.integer("seed", base.seed, low=None)
    models = _Table(table.take("models", {}), "models")
    table.end()
    default = _model(models.take(DEFAULT, {}), f"models.{DEFAULT}", base.default)
    named = {
        name: _model(settings, f"models.{name}", default) for name, settings in models.rest.items()
    }
    return Script(seed, default, named)


def _model(data: object, path: str, base: Model) -> Model:
    table = _Table(data, path)
    model = Model(
        latency=_latency(table.take("latency", base.latency), f"{path}.latency"),
        answer_characters=table.integer("answer_characters", base.answer_characters),
        usage=table.boolean("usage", base.usage),
        reasoning=table.choice("reasoning", base.reasoning, _REASONING),
        quality=_quality(table.take("quality", base.quality), f"{path}.quality"),
        quality_noise=table.number("quality_noise", base.quality_noise),
        stream_pieces=table.integer("stream_pieces", base.stream_pieces, low=1),
        faults=_faults(table.take("faults", base.faults), f"{path}.faults"),
    )
    table.end()
    return model


def _latency(data: object, path: str) -> Latency:
    if isinstance(data, Latency):
        return data
    if not isinstance(data, Mapping):
        return Latency("constant", _number(data, path, 0.0, math.inf))
    table = _Table(data, path)
    kind = table.choice("kind", "constant", _LATENCIES)
    if kind != "lognormal":
        latency = Latency(kind, table.number("mean", None))
        table.end()
        return latency
    median = table.number("p50", None)
    given = [key for key in ("mean", "p95", "p99") if key in table.rest]
    if len(given) != 1:
        raise ScriptError(f"{path}: a lognormal latency has p50 and one of mean, p95, p99")
    value = table.number(given[0], None)
    table.end()
    if not 0.0 < median <= value:
        raise ScriptError(f"{path}.{given[0]}: must be at least p50, and p50 more than 0")
    log = math.log(value / median)
    deviation = _DEVIATIONS.get(given[0])
    return Latency(kind, median, log / deviation if deviation else math.sqrt(2.0 * log))


def _quality(data: object, path: str) -> Mapping[str, float]:
    return {
        language: _number(mean, f"{path}.{language}", 0.0, 1.0)
        for language, mean in _Table(data, path).rest.items()
    }


def _faults(data: object, path: str) -> tuple[Fault, ...]:
    if not isinstance(data, list | tuple):
        raise ScriptError(f"{path}: must be a list of tables")
    faults = tuple(_fault(item, f"{path}[{i}]") for i, item in enumerate(data))
    for start in {fault.from_call for fault in faults}:
        together = sum(fault.share for fault in faults if fault.covers(start))
        if together > 1.0 + _ROUNDING:
            raise ScriptError(f"{path}: the shares at call {start} are {together:g}, more than 1")
    return faults


def _fault(data: object, path: str) -> Fault:
    if isinstance(data, Fault):
        return data
    table = _Table(data, path)
    kind = table.choice("kind", None, tuple(_KEYS_OF))
    values: dict[str, object] = {}
    for key in _KEYS_OF[kind]:
        if key == "retry_after_as":
            values[key] = table.choice(key, "seconds", ("seconds", "date"))
        elif key in table.rest:
            values[key] = table.number(key, None)
    fault = Fault(
        kind,
        share=table.number("share", None, high=1.0),
        from_call=table.integer("from_call", 0),
        to_call=table.integer("to_call", 0) if "to_call" in table.rest else math.inf,
        **values,  # type: ignore[arg-type]
    )
    table.end()
    if fault.to_call <= fault.from_call:
        raise ScriptError(f"{path}.to_call: must be more than from_call")
    return fault


class _Table:
    """A table of a script, whose keys are taken one by one; `rest` holds those left."""

    def __init__(self, data: object, path: str) -> None:
        if not isinstance(data, Mapping):
            raise ScriptError(f"{path}: must be a table")
        self.rest = dict(data)
        self._path = path
        self._known: list[str] = []

    def take(self, key: str, default: object) -> Any:
        self._known.append(key)
        return self.rest.pop(key, default)

    def number(self, key: str, default: float | None, *, high: float = math.inf) -> float:
        return _number(self.take(key, default), self._at(key), 0.0, high)

    def integer(self, key: str, default: int, *, low: int | None = 0) -> int:
        value = self.take(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ScriptError(f"{self._at(key)}: must be a whole number, not {value!r}")
        if low is not None and value < low:
            raise ScriptError(f"{self._at(key)}: must be at least {low}, not {value}")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise ScriptError(f"{self._at(key)}: must be true or false, not {value!r}")
        return value

    def choice(self, key: str, default: str | None, options: Iterable[str]) -> str:
        value = self.take(key, default)
        if not isinstance(value, str) or value not in options:
            raise ScriptError(f"{self._at(key)}: must be one of {', '.join(options)}")
        return value

    def end(self) -> None:
        """Complains of a key that nobody took."""
        for key in self.rest:
            raise ScriptError(f"{self._at(key)}: unknown key; valid are {', '.join(self._known)}")

    def _at(self, key: object) -> str:
        return str(key) if self._path == "script" else f"{self._path}.{key}"


def _number(value: object, path: str, low: float, high: float) -> float:
    # no comparison holds for a NaN
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        said = "is required" if value is None else f"must be a number, not {value!r}"
        raise ScriptError(f"{path}: {said}")
    if not low <= value <= high:
        limits = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ScriptError(f"{path}: must be {limits}, not {value:g}")
    return float(value)
