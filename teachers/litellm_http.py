"""How LiteLLM's requests are sent: once each, and to nobody but the provider.

LiteLLM and the clients under it send a request again when its connection breaks,
carry prompt and key along a redirect, and tell failures by guesses that differ from
provider to provider. So a call brings its own `Exchange`, found by a context variable:
it sends what the call asks for, and remembers what HTTP said.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
from yarl import URL

from arbitrage.errors import (
    ConfigError,
    TeacherAnswerInvalid,
    TeacherError,
    TeacherMisconfigured,
    TeacherUnavailable,
)
from teachers import body
from teachers.completions import parse
from teachers.endpoint import proxy_for
from teachers.refusal import refusal
from teachers.sse import EventReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from teachers.endpoint import Endpoint

_MEGABYTE = 1 << 20
_MOST_BYTES = 32 * _MEGABYTE
_MOST_BYTES_OF_A_REFUSAL = _MEGABYTE // 16
_BYTES_OF_AN_ERROR = 4096
_CODED = ("content-encoding", "content-length")
_STATUS: Mapping[str, int] = {
    "api_error": 500,
    "authentication_error": 401,
    "billing_error": 402,
    "invalid_request_error": 400,
    "not_found_error": 404,
    "overloaded_error": 529,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "request_too_large": 413,
    "server_error": 500,
    "timeout_error": 504,
}
"""Of the errors that Anthropic and OpenAI send in a stream, which has its HTTP status already."""


class Line:
    """The connections of one teacher, to whatever hosts LiteLLM finds its provider at."""

    def __init__(self, endpoint: Endpoint, where: str) -> None:
        self.endpoint = endpoint
        self._where = where
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[str, str | None] = {}

    async def request(self, request: httpx.Request) -> aiohttp.ClientResponse:
        """Sends a request, and returns when the head of its answer has come."""
        url = URL(str(request.url), encoded=True)
        # aiohttp decompresses the answer, whatever httpx could
        request.headers["Accept-Encoding"] = "gzip, deflate"
        return await self._connected().request(
            request.method,
            url,
            headers=request.headers.multi_items(),
            data=await request.aread() or None,
            allow_redirects=False,
            proxy=self._proxy(url),
        )

    async def close(self) -> None:
        """Closes the connections."""
        if self._session:
            await self._session.close()

    def _connected(self) -> aiohttp.ClientSession:
        # made here and not in the constructor, since it belongs to the running loop
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # how many calls may be under way is the pool's to say
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session

    def _proxy(self, url: URL) -> str | None:
        if url.authority not in self._proxies:
            self._proxies[url.authority] = proxy_for(url, self._where)
        return self._proxies[url.authority]


class Exchange:
    """What one call sends, and what comes back.

    Attributes:
        sent: whether a request was sent.
        answered: whether an answer has begun to come.
        failure: the error that an HTTP status or a broken connection means.
    """

    def __init__(self, line: Line) -> None:
        self.sent = self.answered = False
        self.failure: TeacherError | None = None
        self._line = line
        self._responses: list[aiohttp.ClientResponse] = []
        self._end = b""
        self._closed = False

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Sends a request of the call.

        Raises:
            httpx.ReadError: there is no answer; `failure` says why. After most other
                errors, LiteLLM would send the request again.
        """
        if self._closed:
            raise self._broken(ConnectionError("the call has ended"))
        self.sent = True
        try:
            response = await self._line.request(request)
            self._responses.append(response)
            if not httpx.codes.is_success(response.status):
                content, _ = await body.beginning(response, _MOST_BYTES_OF_A_REFUSAL)
                said = _json_or_text(content)
                raise self._failed(
                    refusal(self._line.endpoint, response.status, response.headers, said)
                )
        except (aiohttp.ClientError, OSError) as error:
            raise self._broken(error) from None
        except ConfigError as error:
            raise self._failed(TeacherMisconfigured(str(error))) from None
        self.answered = True
        headers = [(n, value) for n, value in response.headers.items() if n.lower() not in _CODED]
        return httpx.Response(response.status, headers=headers, stream=_Body(response, self))

    async def read(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body of an answer, as it comes."""
        size = 0
        try:
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if size > _MOST_BYTES:
                    place, most = self._line.endpoint.place, _MOST_BYTES // _MEGABYTE
                    raise self._failed(TeacherAnswerInvalid(f"{place}: answer over {most} MB"))
                self._end = (self._end + chunk)[-_BYTES_OF_AN_ERROR:]
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise self._broken(error) from None

    def refused_late(self) -> TeacherError | None:
        """The error that a provider sent in an answer which had begun well."""
        reader = EventReader()
        for data in (self._end, *reader.feed(self._end), *reader.finish()):
            said = _json_or_text(data)
            error = said.get("error") if isinstance(said, dict) else None
            if isinstance(error, dict):
                code = error.get("code")
                status = code if type(code) is int else _STATUS.get(str(error.get("type")))
                if status and httpx.codes.is_error(status):
                    return refusal(self._line.endpoint, status, {}, said)
        return None

    async def run_out(self) -> None:
        """Reads what is left behind an answer's end, so that the connection is used again."""
        for response in self._responses:
            await body.run_out(response)

    def close(self) -> None:
        """Ends the call: an answer that was not read to its end is cut off."""
        self._closed = True
        for response in self._responses:
            response.close()

    def _broken(self, error: Exception) -> httpx.ReadError:
        endpoint = self._line.endpoint
        reason = endpoint.public(str(error) or type(error).__name__)
        # aiohttp's errors hold the request's headers, and so the key
        return self._failed(TeacherUnavailable(f"{endpoint.place}: {reason}"))

    def _failed(self, error: TeacherError) -> httpx.ReadError:
        self.failure = self.failure or error
        return httpx.ReadError(str(error))


EXCHANGE: ContextVar[Exchange | None] = ContextVar("EXCHANGE", default=None)


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse, exchange: Exchange) -> None:
        self._response = response
        self._exchange = exchange

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._exchange.read(self._response)

    async def aclose(self) -> None:
        """Leaves it open: LiteLLM closes a stream before its very end, which the exchange reads."""


class _Transport(httpx.AsyncBaseTransport):
    """Sends a request by the exchange of the call that it belongs to."""

    def __init__(self) -> None:
        self._others: httpx.AsyncHTTPTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if exchange := EXCHANGE.get():
            return await exchange.send(request)
        # a program that embeds this one may use LiteLLM, too
        self._others = self._others or httpx.AsyncHTTPTransport()
        return await self._others.handle_async_request(request)


class _Client(httpx.AsyncClient):
    async def aclose(self) -> None:
        """Stays open, since LiteLLM closes what it finds in its cache; it holds nothing."""


class _Clients:
    """LiteLLM's cache of HTTP clients, with ours in it for the calls of teachers."""

    def __init__(self, cache: Any, client: Any) -> None:
        self._cache = cache
        self._client = client

    def get_cache(self, key: str, **arguments: Any) -> Any:
        if EXCHANGE.get() and key.startswith("async_httpx_client"):
            return self._client
        return self._cache.get_cache(key, **arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)


def _json_or_text(content: bytes) -> object:
    try:
        return parse(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")


def install(litellm: Any) -> None:
    """Has LiteLLM send what belongs to an exchange by that."""
    http = _Client(transport=_Transport(), timeout=None, trust_env=False)  # the pool has one
    client = litellm.AsyncHTTPHandler()
    client.client = http
    litellm.aclient_session = http
    litellm.in_memory_llm_clients_cache = _Clients(litellm.in_memory_llm_clients_cache, client)
