"""Any OpenAI-compatible `/chat/completions` endpoint, over HTTP."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp

from arbitrage.errors import TeacherAnswerInvalid, TeacherError, TeacherUnavailable
from teachers import body
from teachers.completions import (
    ErrorObject,
    HeardThoughts,
    NoAnswer,
    Stream,
    parse,
    read,
    request_body,
    request_fields,
)
from teachers.endpoint import Endpoint
from teachers.refusal import refusal
from teachers.tokens import TokenCounter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arbitrage import config
    from arbitrage.types import Completion, Message
    from teachers.completions import Answers

_OPENAI = "api.openai.com"
_MEGABYTE = 1 << 20
_MOST_BYTES = 32 * _MEGABYTE
_MOST_BYTES_OF_A_REFUSAL = _MEGABYTE // 16
_PARSED_AT_ONCE = _MEGABYTE // 4
_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
_LAST = b"[DONE]"


async def open_teachers(configs: Sequence[config.OpenAITeacher]) -> list[OpenAITeacher]:
    """One teacher for each configuration, in order; nothing is connected yet.

    Raises:
        ConfigError: an address is wrong, a key's environment variable is not set, or a
            tokenizer cannot be loaded.
    """
    counters: dict[str, TokenCounter] = {}
    for settings in configs:
        if settings.tokenizer and settings.tokenizer not in counters:
            counters[settings.tokenizer] = await TokenCounter.load(
                settings.tokenizer, f"teacher {settings.name!r}"
            )
    return [OpenAITeacher(each, counters.get(each.tokenizer or "")) for each in configs]


class OpenAITeacher:
    """A model behind an OpenAI-compatible endpoint.

    It keeps as many connections alive as it has calls side by side. Limits and
    deadlines are the pool's, which can change them while the teacher is at work.

    Args:
        counter: counts the tokens that the endpoint does not; None leaves them uncounted.
    """

    def __init__(self, settings: config.OpenAITeacher, counter: TokenCounter | None = None) -> None:
        self.name = settings.name
        self._endpoint = Endpoint.of(settings)
        self._url = self._endpoint.at("chat/completions")
        self._fields = request_fields(settings)
        if self._endpoint.url.host == _OPENAI and "max_tokens" in self._fields:
            # its newer models refuse the older name, which elsewhere is the only one
            self._fields["max_completion_tokens"] = self._fields.pop("max_tokens")
        self._n = settings.sampling.n
        self._counter = counter
        self._opens_thoughts = False
        self._session: aiohttp.ClientSession | None = None
        self._replies: set[aiohttp.ClientResponse] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"OpenAITeacher(name={self.name!r}, place={self._endpoint.place!r})"

    async def complete(
        self, messages: Sequence[Message], on_delta: Callable[[str], None] | None = None
    ) -> Sequence[Completion]:
        """Sends the conversation; cancelling closes the connection.

        An endpoint that knows no `n` is asked once more for each answer that is missing,
        side by side; of these calls, one that fails is left out.

        Raises:
            TeacherRateLimited: HTTP 429, with the time to wait.
            TeacherUnavailable: HTTP 408, 409, 425 or 5xx; the connection was refused or
                broke, or a stream ended before its answer did.
            TeacherMisconfigured: HTTP 401, 402, 403, 404, or an account without credit.
            TeacherRejected: any other status that is no answer.
            TeacherAnswerInvalid: the answer is not JSON, holds no text, or is over 32 MB.
        """
        fields = {**self._fields, **_STREAMED} if on_delta else self._fields
        completions, choices = await self._ask(fields, messages, on_delta)
        if choices < self._n:
            async with asyncio.TaskGroup() as group:
                others = [
                    group.create_task(self._ask_another(place, messages))
                    for place in range(choices, self._n)
                ]
            completions.extend(completion for other in others for completion in other.result())
        return completions

    async def close(self) -> None:
        """Closes the connections; calls under way fail as unavailable."""
        self._closed = True
        # the session's end alone would leave who reads a body waiting for ever
        for response in self._replies:
            response.close()
        if self._session:
            await self._session.close()

    async def _ask_another(self, place: int, messages: Sequence[Message]) -> list[Completion]:
        fields = {**self._fields, "n": 1}
        if "seed" in fields:
            fields["seed"] += place
        try:
            return (await self._ask(fields, messages)).completions
        except TeacherError:
            return []  # the answers that did come are paid for

    async def _ask(
        self,
        fields: Mapping[str, Any],
        messages: Sequence[Message],
        on_delta: Callable[[str], None] | None = None,
    ) -> Answers:
        if self._closed:
            raise self._unavailable("the teacher is closed")
        request = request_body(fields, messages)
        try:
            # a redirect would take prompt and key to a host that nobody configured
            async with self._connected().post(
                self._url, data=request, allow_redirects=False
            ) as response:
                self._replies.add(response)
                try:
                    answers = await self._answers(response, on_delta)
                finally:
                    self._replies.discard(response)
        except (aiohttp.ClientError, OSError) as error:
            # aiohttp's errors hold the request's headers, and so the key
            raise self._unavailable(str(error) or type(error).__name__) from None
        if self._counter:
            completions = await self._counter.count(messages, answers.completions)
            return answers._replace(completions=completions)
        return answers

    def _connected(self) -> aiohttp.ClientSession:
        # made here and not in the constructor, since it belongs to the running loop
        if self._session is None:
            headers = {"Content-Type": "application/json"}
            if self._endpoint.key:
                headers["Authorization"] = f"Bearer {self._endpoint.key}"
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=headers,
                proxy=self._endpoint.proxy,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session

    async def _answers(
        self, response: aiohttp.ClientResponse, on_delta: Callable[[str], None] | None
    ) -> Answers:
        """What the endpoint answers, or the error that it means."""
        if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
            content, _ = await body.beginning(response, _MOST_BYTES_OF_A_REFUSAL)
            raise refusal(self._endpoint, response.status, response.headers, _json_or_text(content))
        streamed = on_delta and response.content_type == "text/event-stream"
        try:
            if on_delta and streamed:
                return await self._listen(response, on_delta)
            answers = await self._read(response)
        except NoAnswer as error:
            if isinstance(error, HeardThoughts):
                self._opens_thoughts = True
            raise TeacherAnswerInvalid(
                f"{self._endpoint.place}: {self._endpoint.public(str(error))}",
                prompt_tokens=error.billed.prompt_tokens,
                completion_tokens=error.billed.completion_tokens,
            ) from None
        except body.TooLong:
            reason = f"answer over {_MOST_BYTES // _MEGABYTE} MB"
            raise TeacherAnswerInvalid(f"{self._endpoint.place}: {reason}") from None
        except ErrorObject as error:
            if error.status:
                raise refusal(self._endpoint, error.status, response.headers, error.body) from None
            raise self._unavailable(f"an error in the stream: {error}") from None
        if on_delta and (text := answers.completions[0].text):
            on_delta(text)
        return answers

    async def _read(self, response: aiohttp.ClientResponse) -> Answers:
        content = await body.whole(response, _MOST_BYTES)
        if len(content) > _PARSED_AT_ONCE:
            return await asyncio.to_thread(lambda: read(_json(content, response), self._n))
        return read(_json(content, response), self._n)

    async def _listen(
        self, response: aiohttp.ClientResponse, on_delta: Callable[[str], None]
    ) -> Answers:
        stream = Stream(on_delta, self._n, opened=self._opens_thoughts)
        ended = False
        try:
            async with aclosing(body.events(response, _MOST_BYTES)) as events:
                async for data in events:
                    if ended := data == _LAST:
                        break
                    stream.take(_json(data, response))
            if ended:
                await body.run_out(response)
        except aiohttp.ClientError:
            if not stream.whole:
                raise
        # some servers leave the mark out, others the reason why the answer ends
        if not ended and not stream.whole:
            raise self._unavailable("the stream was cut off before the answer's end")
        return stream.finish()

    def _unavailable(self, reason: str) -> TeacherUnavailable:
        return TeacherUnavailable(f"{self._endpoint.place}: {self._endpoint.public(reason)}")


def _json(content: bytes, response: aiohttp.ClientResponse) -> Any:
    try:
        return parse(content)
    except (ValueError, RecursionError) as error:
        kind = response.content_type
        if kind.endswith(("json", "event-stream")):
            # the JSON parser's message quotes nothing of the answer
            raise NoAnswer(f"the answer is not JSON: {error}") from None
        raise NoAnswer(f"the answer is not JSON but {kind}; check base_url") from None


def _json_or_text(content: bytes) -> object:
    try:
        return parse(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")
