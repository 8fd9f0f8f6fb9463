"""The two storages of one attempt, with what is shown to each and how long each may take."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.api import Adapter, Credential, Stat, Timeouts
from protocols.errors import Phase, Scope, TransferError
from transfer_engine.credentials.api import Credentials, Waiting, unnoticed
from transfer_engine.model import Assignment


@dataclass(slots=True, kw_only=True)
class Ends:
    """Source and destination of one transfer."""

    order: Assignment
    source: Adapter
    destination: Adapter
    timeouts: Timeouts
    credentials: Credentials
    waiting: Waiting = unnoticed

    async def source_credential(self) -> Credential:
        """What is shown to the source, good for now. Raises: TransferError of scope SOURCE."""
        return await self.credentials.source(self.order, self.waiting)

    async def dest_credential(self) -> Credential:
        """What is shown to the destination, good for now. Raises: TransferError of scope DESTINATION."""
        return await self.credentials.destination(self.order, self.waiting)

    async def stat_source(self, digest: str | None) -> Stat:
        """Look at the source, with a checksum if `digest` names one."""
        return await self.source.stat(
            self.order.source_url, credential=await self.source_credential(), digest=digest, timeouts=self.timeouts
        )

    async def stat_destination(self, digest: str | None) -> Stat:
        """Look at the destination, with a checksum if `digest` names one."""
        return await self.destination.stat(
            self.order.dest_url, credential=await self.dest_credential(), digest=digest, timeouts=self.timeouts
        )

    async def delete_destination(self) -> None:
        """Remove the file at the destination; one that is gone already is no error."""
        credential = await self.dest_credential()
        await self.destination.delete(self.order.dest_url, credential=credential, timeouts=self.timeouts)

    async def make_parents(self) -> None:
        """Make the directories above the destination."""
        try:
            await self.destination.make_parents(
                self.order.dest_url, credential=await self.dest_credential(), timeouts=self.timeouts
            )
        except TransferError as error:
            raise error.at(Scope.DESTINATION, Phase.PREPARATION) from None

    def source_digests(self) -> frozenset[str]:
        """Algorithms that the source has answered with before."""
        return self.source.capabilities(self.order.source_url).digests

    def destination_digests(self) -> frozenset[str]:
        """Algorithms that the destination has answered with before."""
        return self.destination.capabilities(self.order.dest_url).digests
