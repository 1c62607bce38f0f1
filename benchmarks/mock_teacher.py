"""A misbehaving OpenAI-compatible server, for tests and benchmarks of everything that calls one.

    python benchmarks/mock_teacher.py [--host 127.0.0.1] [--port 0] [--script FILE.toml|.json]
        [--seed 0] [--latency 0.05] [--answer-characters 800]
    python benchmarks/mock_teacher.py --script FILE --plan 20   # what calls would meet; no server

It prints one line, `listening on http://127.0.0.1:PORT/v1`, and ends with 0 on SIGTERM or SIGINT.
It needs the standard library alone.

    POST /v1/chat/completions   an answer or a fault; `n`, `stream` and `stream_options` are heeded
    GET  /v1/models             the models that the script names
    GET  /stats                 counters, see below
    POST /stats/reset           clears them; calls are numbered from 0 again
    POST /script                a JSON script in place of the present one, with the same renumbering

The script, in TOML or JSON; every key may be left out. A key that a model lacks is as in
`models.default`, which models that are not named have, too; a key that this lacks is as the
options of the command say.

    seed = 7

    [models.default]
    latency = 0.05                  # seconds, or one of
                                    # { kind = "constant", mean = 0.05 }
                                    # { kind = "exponential", mean = 0.5 }
                                    # { kind = "lognormal", p50 = 0.4, p95 = 2.0 }: p50 and one
                                    #   of mean, p95, p99
    answer_characters = 800         # at most; the opening sentence is never cut
    stream_pieces = 8               # writes of a streamed answer, spread over the latency
    usage = true                    # false: no token counts
    reasoning = "none"              # "reasoning_content": a field beside the content;
                                    # "think": <think>...</think> in the content
    quality = { de = 0.8, default = 0.4 }   # mean by language, from 0 to 1
    quality_noise = 0.1             # standard deviation; what is drawn is cut off at 0 and 1

    [models."vendor/other"]
    faults = [
        { kind = "rate_limit", share = 0.1, retry_after = 2 },
        { kind = "hang", share = 1.0, from_call = 100, to_call = 200 },  # calls 100 to 199
    ]

    kind            what the client sees (with other keys of that fault)
    rate_limit      429 (retry_after, seconds; retry_after_as = "seconds" or "date", an HTTP date)
    overloaded      503 (the same)
    unauthorized    401
    error           500
    hang            nothing, until it closes the connection
    reset           TCP RST
    half_body       half of the body that Content-Length promises, then the end of the connection
    bad_json        200 with JSON that ends in the middle
    wrong_type      200 with a page in text/html
    drip            the whole answer, a few bytes at a time, over `seconds` (1)
    empty_choices   200 with "choices": []
    huge            a whole answer of `megabytes` (64) million bytes

429, 503 and 401 come at once, everything else when the latency has passed. The calls of a model
are numbered from 0 as they come in. Latency and fault are a pure function of seed, model and
number; the faults of a model share one draw, so at most one hits a call and each hits its share.

The answer is a pure function of seed, model and conversation. It is in the language that the
header `X-Language` names, else a prefix of the last message such as `[de] `, else the script of
its letters (Japanese, Korean, Chinese, Arabic, Hindi, Thai, Ukrainian, Russian), else English;
beside these there are texts in German, Spanish, French, Italian and Portuguese, and English ones
for every other language. It opens with a number that differs from prompt to prompt, and holds its
quality, drawn around the model's mean for the language, as `[quality 0.73]`.

Stats: `{"models": {NAME: COUNTS}, "total": COUNTS, "connections": N}`. Among the N open
connections is the one that asks. COUNTS are `calls` received; `answered`, whole answers sent,
dripping and huge ones among them; `cancelled`, calls whose client closed the connection before
their end; `in_flight` and `most_in_flight`; and `faults`, calls that drew one, by kind. Requests
that are no valid call are not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import signal
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mock_connection import Connection
from mock_http import Refused, response
from mock_parser import ScriptError, load, parse
from mock_script import DEFAULT, Script

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mock_http import Head
    from mock_script import Call

_BACKLOG = 4096
_METHODS = {
    "/v1/models": "GET",
    "/models": "GET",
    "/stats": "GET",
    "/stats/reset": "POST",
    "/script": "POST",
}


@dataclass(slots=True)
class Counts:
    """What became of a model's calls."""

    calls: int = 0
    answered: int = 0
    cancelled: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    faults: dict[str, int] = field(default_factory=dict)

    def began(self) -> None:
        """One more call is under way."""
        self.calls += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def reset(self) -> None:
        """Forgets everything but the calls under way."""
        self.calls = self.answered = self.cancelled = 0
        self.most_in_flight = self.in_flight
        self.faults.clear()


class Server:
    """What all connections share: the script and the counters.

    Args:
        base: what a script that is set later falls back on.
    """

    def __init__(self, script: Script, base: Script) -> None:
        self.script = script
        self._base = base
        self.connections: set[Connection] = set()
        self.models: dict[str, Counts] = {}
        self.total = Counts()
        self._numbers: dict[str, int] = {}

    def begin(self, model: str) -> Call:
        """Counts a call that has come in, and says what it meets."""
        counts = self.models.get(model)
        if counts is None:
            counts = self.models[model] = Counts()
        number = self._numbers.get(model, 0)
        self._numbers[model] = number + 1
        call = self.script.call(model, number)
        for these in (counts, self.total):
            these.began()
            if call.fault:
                these.faults[call.fault.kind] = these.faults.get(call.fault.kind, 0) + 1
        return call

    def end(self, model: str, *, answered: bool = False, cancelled: bool = False) -> None:
        """Counts the end of a call."""
        for counts in (self.models[model], self.total):
            counts.in_flight -= 1
            counts.answered += answered
            counts.cancelled += cancelled

    def tell(self, head: Head, body: bytes) -> bytes:
        """The response to a request that is no call.

        Raises:
            Refused: there is no such resource, or the script that it brings is wrong.
        """
        match head.method, head.path:
            case "GET", "/v1/models" | "/models":
                told: object = {"object": "list", "data": self._models()}
            case "GET", "/stats":
                told = self.stats()
            case "POST", "/stats/reset":
                told = self.reset()
            case "POST", "/script":
                told = self.replace_script(body)
            case _, path if path in _METHODS:
                raise Refused(405, f"only {_METHODS[path]} is possible here")
            case _:
                raise Refused(404, "there is no such path")
        return response(200, json.dumps(told).encode())

    def stats(self) -> Mapping[str, object]:
        """The counters."""
        return {
            "models": {name: asdict(counts) for name, counts in self.models.items()},
            "total": asdict(self.total),
            "connections": len(self.connections),
        }

    def reset(self) -> Mapping[str, object]:
        """Clears the counters; calls are numbered from 0 again."""
        self._numbers.clear()
        self.total.reset()
        for name, counts in list(self.models.items()):
            counts.reset()
            if not counts.in_flight:
                del self.models[name]
        return {}

    def replace_script(self, text: bytes) -> Mapping[str, object]:
        """Takes another script, in JSON; calls are numbered from 0 again.

        Raises:
            Refused: something in it is wrong; the present one stays.
        """
        try:
            self.script = parse(json.loads(text), self._base)
        except (ValueError, RecursionError) as wrong:
            raise Refused(400, str(wrong)) from None
        self._numbers.clear()
        return {}

    def _models(self) -> list[Mapping[str, object]]:
        names = list(self.script.models) or [DEFAULT]
        return [{"id": name, "object": "model", "created": 0, "owned_by": "mock"} for name in names]


async def serve(server: Server, host: str, port: int) -> None:
    """Answers until SIGTERM or SIGINT comes.

    Raises:
        OSError: the address cannot be had.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    listener = await loop.create_server(lambda: Connection(server), host, port, backlog=_BACKLOG)
    address = listener.sockets[0].getsockname()
    place = f"[{address[0]}]" if ":" in address[0] else address[0]
    print(f"listening on http://{place}:{address[1]}/v1", flush=True)
    await stopped.wait()
    listener.close()
    for connection in list(server.connections):
        connection.abort()


def print_plan(script: Script, calls: int) -> None:
    """Prints what the first calls of each model would meet, a JSON object a line."""
    for name in list(script.models) or [DEFAULT]:
        for number in range(calls):
            call = script.call(name, number)
            kind = call.fault.kind if call.fault else None
            row = {"model": name, "call": number, "latency": call.latency, "fault": kind}
            print(json.dumps(row))


def main() -> None:
    """Parses the arguments, and serves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--script", type=Path, metavar="FILE", help="a .toml or .json file")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--latency", type=float, default=0.05, metavar="SECONDS", help="default: %(default)s"
    )
    parser.add_argument(
        "--answer-characters", type=int, default=800, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--plan", type=int, metavar="CALLS", help="print what so many calls would meet, and end"
    )
    arguments = parser.parse_args()
    options = {"latency": arguments.latency, "answer_characters": arguments.answer_characters}
    try:
        base = parse({"seed": arguments.seed, "models": {DEFAULT: options}}, Script())
        script = load(arguments.script, base) if arguments.script else base
    except ScriptError as wrong:
        parser.exit(2, f"mock_teacher: {wrong}\n")
    if arguments.plan is not None:
        print_plan(script, arguments.plan)
        return
    # a connection takes a descriptor, and the usual limit is a thousand
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        asyncio.run(serve(Server(script, base), arguments.host, arguments.port))
    except OSError as wrong:
        parser.exit(1, f"mock_teacher: {arguments.host}:{arguments.port}: {wrong}\n")


if __name__ == "__main__":
    main()
