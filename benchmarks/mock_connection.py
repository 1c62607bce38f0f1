"""One client's connection to the mock teacher: what is due when, and what becomes of it."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, cast

from mock_http import CONTINUE, MAX_BODY, Refused, RequestReader, error
from mock_replies import CLOSE, RESET, read_ask, reply
from mock_script import AT_ONCE, HARMLESS

if TYPE_CHECKING:
    from mock_http import Head
    from mock_replies import Ask, Reply
    from mock_script import Call, Script
    from mock_teacher import Server

_CHAT = frozenset({"/v1/chat/completions", "/chat/completions"})
_LINGER_SECONDS = 5.0
_NO_LINGER = struct.pack("ii", 1, 0)


class Connection(asyncio.Protocol):
    """One client's connection: a request at a time, those behind it wait."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._requests = RequestReader()
        self._transport: asyncio.Transport
        self._ask: Ask | None = None
        self._call: Call | None = None
        self._reply: Reply | None = None
        self._piece: bytes | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._full = False
        self._last = False
        self._deaf = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to listen."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever the reason
        """Frees everything; a call that is under way has been cancelled."""
        self._deaf = True
        self._server.connections.discard(self)
        if self._timer:
            self._timer.cancel()
        if self._ask:
            self._server.end(self._ask.model, cancelled=True)
        self._ask = self._call = self._reply = self._piece = self._timer = None

    def data_received(self, data: bytes) -> None:
        """Takes what has come, and answers what is complete."""
        if self._deaf:
            return
        self._requests.feed(data)
        if self._ask is None:
            self._advance()
        elif self._requests.waiting > MAX_BODY:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """Stops, since the client reads slowly."""
        self._full = True

    def resume_writing(self) -> None:
        """Goes on."""
        self._full = False
        if self._reply and self._timer is None:
            self._write_on()
            self._advance()

    def abort(self) -> None:
        """Ends the connection without a word."""
        self._transport.abort()

    def _advance(self) -> None:
        """Answers the requests that wait, until one takes its time."""
        while self._ask is None and not self._deaf:
            try:
                request = self._requests.next()
                if request is None:
                    if self._requests.expects_continue():
                        self._transport.write(CONTINUE)
                    return
                self._last = request[0].last
                self._serve(*request)
            except Refused as refused:
                self._refuse(refused)

    def _refuse(self, refused: Refused) -> None:
        if not refused.ends:
            self._say(error(refused.status, str(refused)))
            return
        self._transport.write(error(refused.status, str(refused), headers="Connection: close\r\n"))
        self._deaf = True
        # closed at once, with bytes unread, the error would be lost to a reset
        self._transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.abort)

    def _serve(self, head: Head, body: bytes) -> None:
        if head.path not in _CHAT:
            self._say(self._server.tell(head, body))
        elif head.method == "POST":
            self._complete(head, body)
        else:
            raise Refused(405, "only POST is possible here")

    def _complete(self, head: Head, body: bytes) -> None:
        ask = read_ask(body, head.language)
        if ask.stream and not head.modern:
            raise Refused(400, "stream: needs HTTP/1.1")
        self._ask = ask
        script = self._server.script
        call = self._call = self._server.begin(ask.model)
        delay = call.latency
        if call.fault:
            if call.fault.kind == "hang":
                return
            if call.fault.kind in AT_ONCE:
                delay = 0.0
        elif ask.stream:
            delay /= script.model(ask.model).stream_pieces
        if delay > 0.0:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay, self._due, ask, script, call)
        else:
            self._begin(reply(ask, script, call))

    def _due(self, ask: Ask, script: Script, call: Call) -> None:
        self._timer = None
        self._begin(reply(ask, script, call))
        self._advance()

    def _begin(self, how: Reply) -> None:
        self._reply = how
        self._piece = next(how.pieces, None)
        self._write_on()

    def _next_piece(self) -> None:
        self._timer = None
        self._write_on()
        self._advance()

    def _write_on(self) -> None:
        """Writes what is due of the reply, as far as the client reads."""
        while self._reply and not self._full:
            if self._piece is not None:
                self._transport.write(self._piece)
                if self._transport.is_closing():
                    # the client has gone, and its call is about to be counted so
                    return
                self._piece = next(self._reply.pieces, None)
            if self._piece is None:
                self._end(self._reply.end)
            elif self._reply.interval:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._reply.interval, self._next_piece)
                return

    def _end(self, how: str) -> None:
        """Counts the call, and does with the connection what the reply says."""
        if self._ask and self._call:
            fault = self._call.fault
            self._server.end(self._ask.model, answered=fault is None or fault.kind in HARMLESS)
        self._ask = self._call = self._reply = None
        if how == RESET:
            self._deaf = True
            sock: socket.socket = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._transport.abort()
        elif how == CLOSE or self._last:
            self._deaf = True
            self._transport.close()
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    def _say(self, piece: bytes) -> None:
        self._transport.write(piece)
        if self._last:
            self._deaf = True
            self._transport.close()
