"""How a request wants its prompt routed, checked against the engine that is to do it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from arbitrage import wire
from arbitrage.errors import InvalidPrompt
from arbitrage.v1 import arbitrage_pb2 as pb

if TYPE_CHECKING:
    from arbitrage.engine import Engine
    from arbitrage.types import Prompt, Routing

_MAX_UINT32 = 2**32 - 1
_PRIORITIES = {"interactive": pb.PRIORITY_INTERACTIVE, "batch": pb.PRIORITY_BATCH}
_MOST_SECONDS = 1e9  # decades: what protobuf's durations hold, and more than anybody waits


def routing_of(
    engine: Engine, prompt: Prompt, options: pb.RoutingOptions, at: str = "options"
) -> Routing:
    """How a prompt is to be routed.

    Args:
        engine: with the pool and the policy.
        prompt: which is to be routed so.
        options: of the request.
        at: their path.

    Raises:
        InvalidPrompt: an option is wrong, or cannot be granted; the field is its path.
    """
    pool = engine.pool
    names = [teacher.name for teacher in pool.describe()]
    routing = wire.routing_from(options, at, teachers=names, policy=engine.policy.kind)
    if (most := routing.max_cost_usd) is not None:
        least = min(pool.expected_cost(arm, prompt) for arm in routing.teachers or names)
        if least > most:
            reason = f"{most:g} USD: any allowed teacher costs {least:.6f} USD or more"
            raise InvalidPrompt(f"{at}.max_cost_usd", reason)
    return routing


def options_from(given: object, at: str) -> pb.RoutingOptions:
    """The options of an object of JSON, whose keys are those of `RoutingOptions`.

    The one difference: it is `latency_budget_seconds`, a number. Null leaves a key out.

    Args:
        given: the object.
        at: its path.

    Raises:
        InvalidPrompt: it is something else; the field is the path of what is wrong.
    """
    if not isinstance(given, dict):
        raise InvalidPrompt(at, "must be an object")
    options = pb.RoutingOptions()
    for key, value in given.items():
        if value is not None:
            try:
                _set(options, key, value)
            except InvalidPrompt as error:
                raise InvalidPrompt(f"{at}.{error.field}", error.reason) from None
    return options


def _set(options: pb.RoutingOptions, key: str, value: object) -> None:
    match key, value:
        case "policy", str():
            options.policy = wire.unicode(value)
        case "fan_out", int() if not isinstance(value, bool) and 0 <= value <= _MAX_UINT32:
            options.fan_out = value
        case "teachers", list() if all(isinstance(name, str) for name in value):
            options.teachers.extend(map(wire.unicode, value))
        case "max_cost_usd", int() | float() if _is_number(value):
            options.max_cost_usd = value
        case "latency_budget_seconds", int() | float() if _is_number(value) and value > 0.0:
            options.latency_budget.FromNanoseconds(max(1, int(min(value, _MOST_SECONDS) * 1e9)))
        case "learn", bool():
            options.learn = value
        case "priority", str() if value in _PRIORITIES:
            options.priority = _PRIORITIES[value]
        case _ if key in _KINDS:
            raise InvalidPrompt(key, f"must be {_KINDS[key]}")
        case _:
            raise InvalidPrompt(wire.unicode(key)[:100], f"is not known; use {', '.join(_KINDS)}")


def _is_number(value: float) -> bool:
    """Whether it is one that a double holds; JSON has numbers without end."""
    return not isinstance(value, bool) and abs(value) <= sys.float_info.max


_KINDS = {
    "policy": "a text",
    "fan_out": "a whole number from 0 on",
    "teachers": "a list of names",
    "max_cost_usd": "a number from 0 on",
    "latency_budget_seconds": "a number above 0",
    "learn": "true or false",
    "priority": " or ".join(map(repr, _PRIORITIES)),
}
