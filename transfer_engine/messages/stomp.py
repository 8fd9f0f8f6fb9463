"""A sender to a STOMP 1.2 broker on the event loop: every message is confirmed, and every wait is bounded.

Every SEND asks for a receipt of its own: that of a later one would only say that the earlier were received,
not that they were processed. They are sent without waiting for each other.

Source: STOMP Protocol Specification 1.2, "Connecting", "Heart-beating", "Receipt".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Sequence
from typing import Final

from protocols.errors import printable
from protocols.masking import without
from transfer_engine.config_service import Broker, MessageSettings
from transfer_engine.messages.broker import BrokerAway
from transfer_engine.messages.frames import BadFrame, Frame, Frames, encode, head
from transfer_engine.messages.letters import Letter

log = logging.getLogger(__name__)

BEAT_S: Final = 10.0
"""How often each side shows that it lives, if the broker agrees."""
LATE: Final = 3.0
"""So many times later the broker counts as gone: networks and garbage collectors pause."""
CLOSE_S: Final = 1.0
READ_MAX: Final = 64 * 1024
WRITTEN_AT_ONCE: Final = 50


class Stomp:
    """`Courier` over TCP or TLS."""

    def __init__(self, settings: MessageSettings) -> None:
        self._settings = settings
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._connected: asyncio.Future[Frame] | None = None
        self._waiting: set[str] = set()
        """Receipts that have not come."""
        self._news = asyncio.Event()
        self._trouble: str | None = None
        self._passwords: tuple[str, ...] = ()
        self._n_sent = 0

    async def connect(self, broker: Broker) -> None:
        """See `Courier.connect`."""
        await self.close()
        self._trouble, self._n_sent = None, 0
        self._waiting.clear()
        name = f"{broker.host}:{broker.port}"
        try:
            async with asyncio.timeout(self._settings.confirm_s):
                await self._connect(broker)
        except TimeoutError as error:
            await self.close()
            raise BrokerAway(f"{name} does not answer") from error
        except ssl.SSLCertVerificationError as error:
            await self.close()
            raise BrokerAway(f"{name}: its certificate is not believed: {error.verify_message}") from error
        except (OSError, ssl.SSLError) as error:
            await self.close()
            raise BrokerAway(f"{name}: {printable(error.strerror or str(error), 200)}") from error
        except BrokerAway as error:
            await self.close()
            raise BrokerAway(f"{name}: {error}") from error
        except asyncio.CancelledError:
            await self.close()
            raise

    async def _connect(self, broker: Broker) -> None:
        context = await asyncio.to_thread(self._context) if self._settings.tls else None
        self._reader, self._writer = await asyncio.open_connection(broker.host, broker.port, ssl=context)
        loop = asyncio.get_running_loop()
        self._connected = loop.create_future()
        self._tasks = [loop.create_task(self._read(self._reader), name="stomp-reader")]
        beat_ms = int(BEAT_S * 1000)
        headers = {
            "accept-version": "1.2",
            "host": self._settings.vhost or broker.host,
            "heart-beat": f"{beat_ms},{beat_ms}",
        }
        username, password = await asyncio.to_thread(self._login)
        self._passwords = (password,)
        if username is not None:
            headers |= {"login": username, "passcode": password}
        self._writer.write(encode("CONNECT", headers))
        await self._writer.drain()
        answer = await self._connected
        _, wanted_s = _beats(answer)
        if wanted_s:
            beat = self._beat(self._writer, max(BEAT_S, wanted_s))
            self._tasks.append(loop.create_task(beat, name="stomp-beat"))

    def _context(self) -> ssl.SSLContext:
        """Made anew for each connection: certificates are renewed in place."""
        settings = self._settings
        context = ssl.create_default_context()
        if settings.ca is not None:
            if settings.ca.is_dir():
                context = ssl.create_default_context(capath=str(settings.ca))
            else:
                context = ssl.create_default_context(cafile=str(settings.ca))
        if settings.certificate is not None:
            context.load_cert_chain(settings.certificate, settings.key)
        return context

    def _login(self) -> tuple[str | None, str]:
        settings = self._settings
        if settings.password_file is not None:
            return settings.username, settings.password_file.read_text("utf-8").strip()
        return settings.username, settings.password.get_secret_value() if settings.password else ""

    async def send(self, letters: Sequence[Letter], expires_ms: int) -> None:
        """See `Courier.send`."""
        writer = self._writer
        if writer is None:
            raise BrokerAway("not connected")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._settings.confirm_s) as limit:
                heads: dict[tuple[str, str], bytes] = {}
                for start in range(0, len(letters), WRITTEN_AT_ONCE):
                    some = letters[start : start + WRITTEN_AT_ONCE]
                    writer.write(b"".join([self._frame(letter, expires_ms, heads) for letter in some]))
                    await writer.drain()
                    self.check()
                while self._waiting:
                    self._news.clear()
                    await self._news.wait()
                    self.check()
                    # It confirms one after the other: that it goes on is what counts.
                    limit.reschedule(loop.time() + self._settings.confirm_s)
        except TimeoutError as error:
            raise BrokerAway(f"nothing was confirmed for {self._settings.confirm_s:g} s") from error
        except OSError as error:
            raise BrokerAway(self._trouble or printable(error.strerror or str(error), 200)) from error

    def _frame(self, letter: Letter, expires_ms: int, heads: dict[tuple[str, str], bytes]) -> bytes:
        self._n_sent += 1
        receipt = str(self._n_sent)
        self._waiting.add(receipt)
        kind = (letter.destination, letter.vo)
        begin = heads.get(kind)
        if begin is None:
            headers = {
                "destination": letter.destination,
                "content-type": "application/json",
                "persistent": "true",
                "expires": str(expires_ms),
                "vo": letter.vo,
            }
            begin = heads[kind] = head("SEND", headers)
        rest = f"receipt:{receipt}\ncontent-length:{len(letter.body)}\n\n"
        return b"".join((begin, rest.encode(), letter.body, b"\0"))

    def check(self) -> None:
        """See `Courier.check`."""
        if self._trouble is not None:
            raise BrokerAway(self._trouble)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        frames = Frames()
        silence_s: float | None = None
        try:
            while True:
                async with asyncio.timeout(silence_s):
                    data = await reader.read(READ_MAX)
                if not data:
                    self._fail("the broker closed the connection")
                    return
                for frame in frames.feed(data):
                    if frame.command == "CONNECTED":
                        own_s, _ = _beats(frame)
                        silence_s = LATE * max(BEAT_S, own_s) if own_s else None
                    self._take(frame)
        except TimeoutError:
            self._fail("nothing was heard of the broker")
        except BadFrame as error:
            self._fail(f"the broker does not speak STOMP 1.2: {error}")
        except OSError as error:
            self._fail(printable(error.strerror or str(error), 200))
        except Exception:  # task boundary: who waits for what this task reads must hear of its end
            log.exception("what a broker sent could not be read")
            self._fail("what the broker sent could not be read")

    def _take(self, frame: Frame) -> None:
        if frame.command == "RECEIPT":
            self._waiting.discard(frame.headers.get("receipt-id", ""))
            self._news.set()
        elif frame.command == "CONNECTED" and self._connected is not None and not self._connected.done():
            if frame.headers.get("version") == "1.2":
                self._connected.set_result(frame)
            else:
                self._fail("it does not speak STOMP 1.2")
        elif frame.command == "ERROR":
            text = frame.headers.get("message") or frame.body.decode("utf-8", "replace")
            self._fail(f"refused: {printable(text, 200)}")

    def _fail(self, why: str) -> None:
        # What is heard first is the cause; that the connection ends follows from it.
        if self._trouble is None:
            # A broker may quote the frame that it does not take, the password in it.
            self._trouble = without(why, self._passwords)
        if self._connected is not None and not self._connected.done():
            self._connected.set_exception(BrokerAway(self._trouble))
        self._news.set()

    async def _beat(self, writer: asyncio.StreamWriter, every_s: float) -> None:
        with contextlib.suppress(OSError):
            while not writer.is_closing():
                await asyncio.sleep(every_s)
                writer.write(b"\n")

    async def close(self) -> None:
        """See `Courier.close`."""
        writer, self._writer, self._reader = self._writer, None, None
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        connected, self._connected = self._connected, None
        if connected is not None and connected.done() and not connected.cancelled():
            connected.exception()
        if writer is None:
            return
        with contextlib.suppress(OSError, TimeoutError):
            # What is lost by not asking for a receipt of DISCONNECT is nothing: all messages have theirs.
            writer.write(encode("DISCONNECT", {}))
            writer.close()
            async with asyncio.timeout(CLOSE_S):
                await writer.wait_closed()
        writer.transport.abort()


def _beats(connected: Frame) -> tuple[float, float]:
    """How often a broker beats, and wants to hear a beat, in seconds; 0: never."""
    own, _, wanted = connected.headers.get("heart-beat", "0,0").partition(",")
    return _seconds(own), _seconds(wanted)


def _seconds(milliseconds: str) -> float:
    return int(milliseconds) / 1000 if milliseconds.isdecimal() else 0.0
