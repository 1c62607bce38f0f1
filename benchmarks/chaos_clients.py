"""One client of `chaos.py`: asks without end, and notes on disk what became of each request.

A note is a line of JSON that is written before anything else happens, so that what a client was
told of is known even if it is killed the moment after. It ends by itself on SIGTERM, with what it
has asked answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc

from arbitrage.status import CODES
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub, JobServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

LANGUAGES = ("de", "en", "fr", "ja", "sw", "th")
AT_ONCE = 8
OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
PATIENCE_SECONDS = 90.0
_LEAVES, _HURRIES, _TWICE = 0.06, 0.06, 0.04  # shares of the requests ...
_CANCELLED, _UNREAD = 0.2, 0.2  # ... of the jobs, and of the streams
_TRIES = 3
FINAL = (pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED)


@dataclass
class Notes:
    """What became of the requests of one client.

    Args:
        path: a file that nobody else writes.
        name: of the client, which leads the names of its requests.
    """

    path: str
    name: str
    _asked: int = 0
    _file: int = field(init=False)

    def __post_init__(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def ask(self) -> str:
        """Names a request that is about to be sent."""
        self._asked += 1
        name = f"{self.name}-{self._asked}"
        self._put({"asked": name})
        return name

    def ended(self, name: str, fate: str, sample_id: str = "") -> None:
        """A request has come to its end: OK, a code, or `left` where the client gave up."""
        self._put({"ended": name, "fate": fate, "sample": sample_id})

    def job(self, job_id: str, prompts: int) -> None:
        """A job was created, which is told of so many prompts."""
        self._put({"job": job_id, "prompts": prompts})

    def _put(self, line: dict[str, object]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")


@dataclass(frozen=True)
class Client:
    """Asks the service in one way."""

    address: str
    openai: str
    notes: Notes
    rng: random.Random
    stopped: asyncio.Event

    async def run(self, kind: str) -> None:
        """Asks until it is stopped."""
        ways: dict[str, Callable[[Any], Awaitable[None]]] = {
            "complete": self._complete,
            "stream": self._stream,
            "arbitrate": self._arbitrate,
            "jobs": self._job,
            "openai": self._chat,
        }
        at_once = 2 if kind in {"arbitrate", "jobs"} else AT_ONCE
        session = aiohttp.ClientSession if kind == "openai" else self._channel

        async def go_on() -> None:
            while not self.stopped.is_set():
                await ways[kind](opened)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.stopped.wait(), self.rng.uniform(0.0, 0.2))

        async with session() as opened, asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(go_on())

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[grpc.aio.Channel]:
        async with grpc.aio.insecure_channel(self.address, OPTIONS) as channel:
            yield channel

    async def _ended(self, name: str, answer: Awaitable[str]) -> str:
        """Waits for a sample's id, notes how the request ended, and returns that."""
        patience = PATIENCE_SECONDS
        if leaves := self.rng.random() < _LEAVES:
            patience = self.rng.uniform(0.0, 0.5)
        fate, sample_id = "OK", ""
        try:
            async with asyncio.timeout(patience):
                sample_id = await answer
        except TimeoutError:
            fate = "left" if leaves else "never answered"
        except grpc.aio.AioRpcError as error:
            fate = _fate(error)
        except _Refused as refused:
            fate = str(refused)
        except aiohttp.ClientError as error:
            fate = f"connection: {error!r}"
        self.notes.ended(name, fate, sample_id)
        return fate

    def _timeout(self) -> float:
        return self.rng.uniform(0.05, 1.0) if self.rng.random() < _HURRIES else 60.0

    def _prompt(self, text: str) -> pb.Prompt:
        return pb.Prompt(text=text, language=self.rng.choice(LANGUAGES))

    async def _complete(self, channel: grpc.aio.Channel) -> None:
        """Asks, once more where it may help, and now and then twice at once."""
        stub = ArbitrageServiceStub(channel)

        async def ask() -> str:
            request = pb.CompleteRequest(prompt=prompt)
            return str((await stub.Complete(request, timeout=self._timeout())).sample.sample_id)

        name = self.notes.ask()
        prompt = self._prompt(f"Question {name}?")
        if self.rng.random() < _TWICE:
            await asyncio.gather(*(self._ended(n, ask()) for n in (name, self.notes.ask())))
            return
        for _ in range(_TRIES):
            if await self._ended(name, ask()) not in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "left"}:
                return
            await asyncio.sleep(0.5)
            name = self.notes.ask()
        await self._ended(name, ask())

    async def _stream(self, channel: grpc.aio.Channel) -> None:
        """Follows one prompt step by step."""
        name = self.notes.ask()
        request = pb.StreamCompleteRequest(prompt=self._prompt(f"Question {name}?"))
        if self.rng.choice((True, False)):
            request.options.fan_out = 1
        call = ArbitrageServiceStub(channel).StreamComplete(request, timeout=self._timeout())

        async def read() -> str:
            results = [s.result.sample_id async for s in call if s.WhichOneof("event") == "result"]
            (result,) = results  # one, and no more
            return str(result)

        try:
            await self._ended(name, read())
        finally:
            call.cancel()

    async def _arbitrate(self, channel: grpc.aio.Channel) -> None:
        """Sends many prompts over one stream; at times leaves in the middle of it."""
        waiting = {self.notes.ask() for _ in range(self.rng.randint(1, 40))}
        requests = [
            pb.ArbitrateRequest(request_id=name, prompt=self._prompt(f"Question {name}?"))
            for name in waiting
        ]
        call = ArbitrageServiceStub(channel).Arbitrate(iter(requests), timeout=self._timeout())
        enough = self.rng.randint(0, 40) if self.rng.random() < _UNREAD else -1
        rest = "no answer in a stream that ended well"
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                async for told in call:
                    name, failed = told.request_id, told.HasField("error")
                    fate = CODES[told.error.code].name if failed else "OK"
                    self.notes.ended(name, fate, told.sample.sample_id)
                    waiting.discard(name)
                    if enough == len(requests) - len(waiting):
                        rest = "left"
                        break
        except TimeoutError:
            rest = "never answered"
        except grpc.aio.AioRpcError as error:
            rest = _fate(error)
        finally:
            call.cancel()
        for name in waiting:
            self.notes.ended(name, rest)

    async def _job(self, channel: grpc.aio.Channel) -> None:
        """Creates a job and follows it; cancels some, and lets those go on that did not end."""
        stub = JobServiceStub(channel)
        asked = self.notes.ask()
        job_id = f"job-{asked}"
        prompts = [self._prompt(f"Row {n} of {job_id}?") for n in range(self.rng.randint(5, 40))]
        spec = pb.JobSpec(prompts=pb.PromptList(prompts=prompts))
        request = pb.CreateJobRequest(job_id=job_id, spec=spec)

        async def create() -> str:
            await stub.CreateJob(request, timeout=60.0)
            return ""

        async def cancel() -> str:
            await asyncio.sleep(self.rng.uniform(0.0, 1.0))
            await stub.CancelJob(pb.CancelJobRequest(job_id=job_id), timeout=60.0)
            return ""

        async def follow() -> str:
            async for told in stub.WatchJob(pb.WatchJobRequest(job_id=job_id), timeout=60.0):
                state = told.job.state
                states.append(state)
                if state == pb.JOB_STATE_FAILED:
                    code = CODES[told.job.error.code].name
                    self.notes.ended(self.notes.ask(), code)
            if state not in FINAL:
                raise _Refused("a watch that ended well before its job did")
            return ""

        self.notes.job(job_id, len(prompts))
        for _ in range(_TRIES):
            states: list[int] = []
            created = await self._ended(asked, create())
            if created == "OK":
                steps = [follow(), *([cancel()] if self.rng.random() < _CANCELLED else [])]
                await asyncio.gather(*(self._ended(self.notes.ask(), step) for step in steps))
            if states and states[-1] == pb.JOB_STATE_SUCCEEDED:
                return
            await asyncio.sleep(0.5)
            asked = self.notes.ask()
        await self._ended(asked, create())

    async def _chat(self, session: aiohttp.ClientSession) -> None:
        """Asks through OpenAI's API, every other time as a stream."""
        name = self.notes.ask()
        body = {
            "model": "arbitrage",
            "messages": [{"role": "user", "content": f"Question {name}?"}],
            "stream": self.rng.choice((True, False)),
        }

        async def ask() -> str:
            async with session.post(f"{self.openai}/chat/completions", json=body) as response:
                if response.status != 200:  # noqa: PLR2004 - OK
                    raise _Refused(_refusal(await response.json()))
                if not body["stream"]:
                    return str((await response.json())["arbitrage"]["sample_id"])
                return _result((await response.text()).strip().split("\n\n"))

        await self._ended(name, ask())


class _Refused(Exception):
    """How a request ended that brought no sample."""


def _fate(error: grpc.aio.AioRpcError) -> str:
    """A code, and what is said of those that no client should ever see."""
    code = error.code().name
    return code if code not in {"INTERNAL", "UNKNOWN"} else f"{code}: {error.details()}"


def _refusal(body: dict[str, Any]) -> str:
    error = body["error"]
    return f"OpenAI {error['type']}, {error['code']}"


def _result(events: list[str]) -> str:
    """The sample that a stream of events tells of at its end."""
    chunks = [event.removeprefix("data: ") for event in events]
    if "error" in (last := json.loads(chunks[-1]) if chunks[-1] != "[DONE]" else {}):
        raise _Refused(_refusal(last))
    told = [json.loads(chunk) for chunk in chunks[:-1]]
    (sample_id,) = [one["arbitrage"]["sample_id"] for one in told if "arbitrage" in one]
    return str(sample_id)


async def _run(options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    rng = random.Random(options.name)  # noqa: S311 - moments, no secrets
    notes = Notes(options.notes, options.name)
    await Client(options.address, options.openai, notes, rng, stopped).run(options.kind)


def main() -> None:
    """Is one client."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("kind", "address", "openai", "notes", "name"):
        parser.add_argument(name)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
