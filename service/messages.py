"""Bytes that are no message: its sender's mistake, which is told as one, and no bug."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from arbitrage.errors import InvalidPrompt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

Context = grpc.aio.ServicerContext[Any, Any]
UNREADABLE = object()
"""Stands for a message that could not be read."""
_REASON = "is no message of this method: its bytes cannot be read as protobuf"


def lenient(read: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Reads as another does, but what cannot be read as `UNREADABLE`."""

    def read_or_not(sent: bytes) -> object:
        try:
            return read(sent)
        except DecodeError:
            return UNREADABLE

    return read_or_not


class Readable:
    """The messages of a stream, which ends at one that cannot be read.

    Attributes:
        broken: whether it has ended so.
    """

    def __init__(self, messages: AsyncIterator[Any]) -> None:
        self._messages = aiter(messages)
        self.broken = False

    def __aiter__(self) -> Readable:
        return self

    async def __anext__(self) -> Any:
        message = await anext(self._messages)
        if message is UNREADABLE:
            self.broken = True
            raise StopAsyncIteration
        return message

    def check(self) -> None:
        """Tells of the message that has ended the stream, when all before it are answered.

        Raises:
            InvalidPrompt: there was one.
        """
        require(UNREADABLE if self.broken else None)


def require(message: object) -> None:
    """Lets a message pass.

    Raises:
        InvalidPrompt: it is none.
    """
    if message is UNREADABLE:
        raise InvalidPrompt("request", _REASON)


async def end(
    context: Context,
    code: grpc.StatusCode,
    message: str,
    trailers: tuple[tuple[str, str | bytes], ...] = (),
) -> None:
    """Ends an RPC with a status, and nothing before it: only then do clients try again.

    Its handler has to return then, and gRPC raises for it. Where `abort` itself raises, its error
    holds the frames that hold it: the request would stay in memory until the garbage collector
    comes by, and it comes seldom.
    """
    try:
        await context.abort(code, message, trailers)
    except grpc.aio.AbortError as error:
        error.__traceback__ = error.__context__ = None


def checked(handler: Any) -> Any:
    """A handler of gRPC's own services that meets no message which cannot be read."""
    wide = handler.request_streaming and handler.response_streaming
    narrow = "unary_stream" if handler.response_streaming else "unary_unary"
    kind = "stream_stream" if wide else narrow
    behaviour = getattr(handler, kind)

    async def answer(message: Any, context: Context) -> Any:
        if message is UNREADABLE:
            return await end(context, grpc.StatusCode.INVALID_ARGUMENT, _REASON)
        return await behaviour(message, context)

    async def answers(message: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        messages = Readable(message)
        async for response in behaviour(messages, context):
            yield response
        if messages.broken:
            await end(context, grpc.StatusCode.INVALID_ARGUMENT, _REASON)

    return getattr(grpc, f"{kind}_rpc_method_handler")(
        answers if wide else answer,
        request_deserializer=lenient(handler.request_deserializer),
        response_serializer=handler.response_serializer,
    )
