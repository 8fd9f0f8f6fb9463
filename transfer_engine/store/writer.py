"""Group commit: whatever was handed in since the last commit becomes one transaction.

There is no timer. While one transaction is being written to disk the next one gathers, so that the
more there is to do, the cheaper each piece becomes: 10,000 durable changes a second and more, where
one commit each would give a few hundred.

One thread owns the one connection that writes. SQLite before 3.51.3 can corrupt its write-ahead log
when several connections write or checkpoint at the same time; here only one ever does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError, DBAPIError, InternalError, OperationalError

from transfer_engine.errors import StoreUnavailable

log = logging.getLogger(__name__)

BATCH_MAX: Final = 2000
"""Most operations in one transaction: bounds how long a later one waits for it."""

Operation = Callable[[Connection, Sequence[Any]], Sequence[Any]]
"""(connection, inputs) → one result per input; an Exception among them is for its caller alone."""


class _Pending:
    __slots__ = ("future", "operation", "payload")

    def __init__(self, operation: Operation, payload: object, future: asyncio.Future[Any]) -> None:
        self.operation = operation
        self.payload = payload
        self.future = future


class Writer:
    """Owns the writing connection and the order of everything that is written."""

    def __init__(
        self, connection: Callable[[], Connection], *, on_rollback: Callable[[], None], inline: bool = False
    ) -> None:
        """Nothing is opened yet.

        Args:
            connection: opens the connection, in the thread that will use it.
            on_rollback: called in that thread whenever a transaction came to nothing.
            inline: no thread; for virtual time.
        """
        self._open = connection
        self._on_rollback = on_rollback
        self._inline = inline
        self._connection: Connection | None = None
        self._pending: list[_Pending] = []
        self._wakeup = threading.Condition()
        self._stopping = False
        self._scheduled = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Open the connection; raises what opening it raises."""
        self._loop = asyncio.get_running_loop()
        if self._inline:
            self._connection = self._open()
            return
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, args=(opened,), name="store-writer", daemon=True)
        self._thread.start()
        await opened

    async def stop(self) -> None:
        """Write what is pending, then close the connection."""
        if self._inline:
            self._run_inline()
            self._close()
            return
        if self._thread is None:
            return
        with self._wakeup:
            self._stopping = True
            self._wakeup.notify()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        self._thread = None

    def submit(self, operation: Operation, payload: object) -> asyncio.Future[Any]:
        """Hand in one operation; the future resolves after the commit that holds it.

        Equal operations of one transaction run as one call with all their inputs.
        """
        loop = self._loop
        if loop is None or self._stopping or (self._inline and self._connection is None):
            msg = "the store is closed"
            raise StoreUnavailable(msg)
        pending = _Pending(operation, payload, loop.create_future())
        if self._inline:
            self._pending.append(pending)
            if not self._scheduled:
                self._scheduled = True
                loop.call_soon(self._run_inline)
        else:
            with self._wakeup:
                self._pending.append(pending)
                self._wakeup.notify()
        return pending.future

    def _take(self) -> list[_Pending]:
        batch, self._pending = self._pending[:BATCH_MAX], self._pending[BATCH_MAX:]
        return batch

    def _run_inline(self) -> None:
        self._scheduled = False
        while self._pending:
            batch = self._take()
            self._deliver(batch, self._execute(batch))

    def _work(self, opened: asyncio.Future[None]) -> None:
        loop = cast("asyncio.AbstractEventLoop", self._loop)
        try:
            self._connection = self._open()
        except Exception as error:  # noqa: BLE001 - thread boundary: the error is start()'s
            loop.call_soon_threadsafe(opened.set_exception, error)
            return
        loop.call_soon_threadsafe(opened.set_result, None)
        while True:
            with self._wakeup:
                while not self._pending and not self._stopping:
                    self._wakeup.wait()
                batch = self._take()
            if not batch:
                break
            results = self._execute(batch)
            try:
                loop.call_soon_threadsafe(self._deliver, batch, results)
            except RuntimeError:
                log.warning("event loop closed before the store was", extra={"n_lost": len(batch)})
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            engine = self._connection.engine
            self._connection.close()
            self._connection = None
            engine.dispose()

    @staticmethod
    def _deliver(batch: Sequence[_Pending], results: Sequence[Any]) -> None:
        for pending, result in zip(batch, results, strict=True):
            if pending.future.done():
                continue
            if isinstance(result, BaseException):
                pending.future.set_exception(result)
            else:
                pending.future.set_result(result)

    def _execute(self, batch: Sequence[_Pending]) -> Sequence[Any]:
        try:
            return self._transaction(batch)
        except Exception as error:
            self._roll_back()
            if isinstance(error, DBAPIError) and _is_the_databases(error):
                log.warning("transaction failed", extra={"error": str(error.orig), "n": len(batch)})
                return [StoreUnavailable(f"the database cannot be written: {error.orig}") for _ in batch]
            if len(batch) == 1:
                log.exception("operation failed", extra={"operation": _name(batch[0].operation)})
                return [error]
        # One bad operation must not take the others with it: each gets a transaction of its own.
        return [self._execute([pending])[0] for pending in batch]

    def _roll_back(self) -> None:
        """End the transaction at the database as well: after a COMMIT that failed it may still be open."""
        connection = cast("Connection", self._connection)
        dialect = connection.dialect
        try:
            dialect.do_rollback(connection.connection)
        except dialect.loaded_dbapi.Error as error:
            log.warning("rollback failed", extra={"error": str(error)})
        self._on_rollback()

    def _transaction(self, batch: Sequence[_Pending]) -> Sequence[Any]:
        groups: dict[Operation, list[int]] = {}
        for place, pending in enumerate(batch):
            groups.setdefault(pending.operation, []).append(place)
        results: list[Any] = [None] * len(batch)
        connection = cast("Connection", self._connection)
        with connection.begin():
            for operation, places in groups.items():
                outcome = operation(connection, [batch[place].payload for place in places])
                for place, result in zip(places, outcome, strict=True):
                    results[place] = result
        return results


def _is_the_databases(error: DBAPIError) -> bool:
    """Whether the database is to blame (a full disk, a broken file), not what was asked of it."""
    return isinstance(error, OperationalError | InternalError) or type(error) is DatabaseError


def _name(operation: Operation) -> str:
    return getattr(operation, "__name__", type(operation).__name__)
