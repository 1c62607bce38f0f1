"""Any model that LiteLLM reaches: Anthropic, Gemini, Cohere, Bedrock, Mistral and many more.

LiteLLM translates a request into the provider's protocol, and the answer back.
Sending it, retries, limits and logs are not left to it.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from arbitrage.errors import (
    TeacherAnswerInvalid,
    TeacherError,
    TeacherMisconfigured,
    TeacherUnavailable,
)
from teachers import litellm_library as library
from teachers.completions import Answers, HeardThoughts, NoAnswer, Stream, read
from teachers.litellm_http import EXCHANGE, Exchange, Line
from teachers.litellm_settings import Request
from teachers.refusal import refusal
from teachers.tokens import TokenCounter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextvars import Context

    from arbitrage import config
    from arbitrage.types import Completion, Message

_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
_ENDS = ("received_finish_reason", "intermittent_finish_reason")
_CUT_OFF = "the stream was cut off before the answer's end"
_A_MOMENT = 1.0


async def open_teachers(configs: Sequence[config.LiteLLMTeacher]) -> list[LiteLLMTeacher]:
    """One teacher for each configuration, in order; nothing is connected yet.

    Raises:
        ConfigError: the installed LiteLLM must not be used, a model's provider is unknown,
            an option holds a secret, a key's environment variable is not set, or a
            provider does not take a setting.
        ImportError: LiteLLM is not installed.
    """
    litellm = await asyncio.to_thread(library.load)
    requests = [await asyncio.to_thread(Request.of, settings, litellm) for settings in configs]
    return [
        LiteLLMTeacher(settings, request, litellm)
        for settings, request in zip(configs, requests, strict=True)
    ]


class LiteLLMTeacher:
    """A model behind LiteLLM.

    It knows no timeout of its own: the pool gives each call its deadline. Where the
    provider does not count tokens, OpenAI's `o200k_base` does.

    Attributes:
        price: what LiteLLM's price list says of the model, if it knows it.
    """

    def __init__(self, settings: config.LiteLLMTeacher, request: Request, litellm: Any) -> None:
        self.name = settings.name
        self.price = request.price
        self._litellm = litellm
        self._endpoint = request.endpoint
        self._arguments = request.arguments
        self._n = settings.sampling.n
        self._at_once = request.at_once
        self._line = Line(request.endpoint, f"teacher {settings.name!r}")
        self._counter = TokenCounter(library.Tokenizer(litellm))
        self._opens_thoughts = False
        self._calls: dict[asyncio.Task[Answers], Exchange] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"LiteLLMTeacher(name={self.name!r}, place={self._endpoint.place!r})"

    async def complete(
        self, messages: Sequence[Message], on_delta: Callable[[str], None] | None = None
    ) -> list[Completion]:
        """Sends the conversation; cancelling closes the connection.

        A provider that knows no `n` is asked once for each answer, side by side, with
        seeds that follow one another where one is set. So is one that brings fewer
        answers than asked for, once for each that is missing. Of several calls, those
        that fail are left out while another brings an answer.

        Raises:
            TeacherRateLimited: HTTP 429, with the time to wait.
            TeacherUnavailable: HTTP 408, 409, 425 or 5xx; the connection was refused or
                broke, or a stream ended before its answer did.
            TeacherMisconfigured: HTTP 401, 402, 403, 404, an account without credit, or a
                setting that the provider does not take.
            TeacherRejected: any other status that is no answer.
            TeacherAnswerInvalid: the answer is not what the provider's protocol says, or
                holds no text.
        """
        if self._n == 1:
            return (await self._ask(messages, on_delta)).completions
        calls = [self._ask(messages, on_delta)]
        calls += [self._ask_another(place, messages) for place in range(self._at_once, self._n)]
        first, *others = await asyncio.gather(*calls, return_exceptions=True)
        if isinstance(first, Answers):
            missing = range(first.choices, self._at_once)
            more = (self._ask_another(place, messages) for place in missing)
            others += await asyncio.gather(*more, return_exceptions=True)
        return _together(first, others, heard=on_delta is not None)

    async def close(self) -> None:
        """Ends the calls under way, which fail as unavailable, and closes the connections."""
        self._closed = True
        await asyncio.gather(*(_end(task, exchange) for task, exchange in self._calls.items()))
        await self._line.close()

    async def _ask_another(self, place: int, messages: Sequence[Message]) -> Answers:
        fields: dict[str, Any] = {"n": None}
        if (seed := self._arguments.get("seed")) is not None:
            fields["seed"] = seed + place
        return await self._ask(messages, fields=fields)

    async def _ask(
        self,
        messages: Sequence[Message],
        on_delta: Callable[[str], None] | None = None,
        fields: dict[str, Any] | None = None,
    ) -> Answers:
        if self._closed:
            raise self._unavailable("the teacher is closed")
        turns = [{"role": message.role, "content": message.content} for message in messages]
        arguments = {**self._arguments, **(fields or {}), "messages": turns}
        exchange = Exchange(self._line)
        call = self._talk(arguments, exchange, on_delta)
        # a task, so that it has a context of its own
        task = asyncio.create_task(call, context=_context(exchange))
        self._calls[task] = exchange
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await _end(task, exchange)
            raise
        finally:
            del self._calls[task]
        if task.cancelled():
            raise self._unavailable("the teacher is closed")
        answers = task.result()
        first = answers.completions[0]
        if first.prompt_tokens is not None and first.completion_tokens is not None:
            return answers
        await asyncio.to_thread(library.load_tokenizer)
        completions = await self._counter.count(messages, answers.completions)
        return answers._replace(completions=completions)

    async def _talk(
        self,
        arguments: dict[str, Any],
        exchange: Exchange,
        on_delta: Callable[[str], None] | None,
    ) -> Answers:
        try:
            if on_delta:
                return await self._listen(arguments, exchange, on_delta)
            answer = await self._told(exchange, self._litellm.acompletion(**arguments))
            return read(library.body(answer), self._at_once)
        except NoAnswer as error:
            self._opens_thoughts |= isinstance(error, HeardThoughts)
            raise TeacherAnswerInvalid(
                f"{self._endpoint.place}: {self._endpoint.public(str(error))}",
                prompt_tokens=error.billed.prompt_tokens,
                completion_tokens=error.billed.completion_tokens,
            ) from None
        finally:
            exchange.close()

    async def _listen(
        self, arguments: dict[str, Any], exchange: Exchange, on_delta: Callable[[str], None]
    ) -> Answers:
        heard = Stream(on_delta, self._at_once, opened=self._opens_thoughts)
        asked = self._litellm.acompletion(**arguments, **_STREAMED)
        stream = await self._told(exchange, asked, otherwise=_CUT_OFF)
        chunks = aiter(stream)
        while True:
            chunk = await self._told(exchange, anext(chunks, None), otherwise=_CUT_OFF)
            if chunk is None:
                break
            heard.take(library.chunk(chunk))
        # LiteLLM makes up an end for a stream that has none
        if not any(getattr(stream, name, "unknown") for name in _ENDS):
            raise exchange.failure or self._unavailable(_CUT_OFF)
        await exchange.run_out()
        return heard.finish()

    async def _told(
        self, exchange: Exchange, telling: Awaitable[Any], *, otherwise: str | None = None
    ) -> Any:
        """What LiteLLM returns, or the error for what it raises.

        Args:
            exchange: knows what HTTP said, which comes first.
            telling: LiteLLM's own.
            otherwise: what an error means after an answer has begun well; else, it
                cannot be read.
        """
        try:
            return await telling
        except Exception as error:  # noqa: BLE001 - LiteLLM's own classes are not all there is
            failure = exchange.failure or (exchange.answered and exchange.refused_late())
            said = self._endpoint.public(library.words(error))
            if not failure and not exchange.answered:
                failure = self._own_error(error, said)
        # not in the handler: LiteLLM's errors hold the request, and so the key
        if failure:
            raise failure
        if otherwise:
            raise self._unavailable(f"{otherwise}: {said}")
        raise TeacherAnswerInvalid(f"{self._endpoint.place}: no answer can be read: {said}")

    def _own_error(self, error: Exception, said: str) -> TeacherError:
        """The error for one of LiteLLM's own, before a request or beside our HTTP."""
        status = getattr(error, "status_code", None)
        if isinstance(error, self._litellm.UnsupportedParamsError):
            return TeacherMisconfigured(f"{self._endpoint.place}: {said}")
        if type(status) is not int or isinstance(error, self._litellm.APIConnectionError):
            return self._unavailable(said)
        headers = getattr(error, "litellm_response_headers", None) or {}
        return refusal(self._endpoint, status, headers, said)

    def _unavailable(self, reason: str) -> TeacherUnavailable:
        return TeacherUnavailable(f"{self._endpoint.place}: {self._endpoint.public(reason)}")


def _context(exchange: Exchange) -> Context:
    context = copy_context()
    context.run(EXCHANGE.set, exchange)
    context.run(library.unlogged().set, True)
    return context


async def _end(task: asyncio.Task[Answers], exchange: Exchange) -> None:
    """Cancels a call, and waits until it has closed its connection."""
    exchange.close()
    if not exchange.sent:
        # a thread may be at work on the request: what it returns has to be awaited
        await asyncio.wait([task], timeout=_A_MOMENT)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _together(
    first: Answers | BaseException, others: Sequence[Answers | BaseException], *, heard: bool
) -> list[Completion]:
    """The answers of several calls, or the first one's error."""
    ends = (first, *others)
    for end in ends:
        if isinstance(end, BaseException) and not isinstance(end, TeacherError):
            raise end
    completions = [c for end in ends if isinstance(end, Answers) for c in end.completions]
    # what was heard of an answer is no part of any other
    if isinstance(first, TeacherError) and (heard or not completions):
        first.prompt_tokens = _sum([first, *completions], "prompt_tokens")
        first.completion_tokens = _sum([first, *completions], "completion_tokens")
        raise first
    return completions


def _sum(billed: Sequence[TeacherError | Completion], name: str) -> int | None:
    counts = [tokens for each in billed if (tokens := getattr(each, name)) is not None]
    return sum(counts) if counts else None
