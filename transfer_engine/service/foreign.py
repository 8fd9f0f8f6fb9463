"""What belongs to FTS3 and not to this service: directories of storages, and clouds with keys of their own."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from transfer_engine.errors import Forbidden, NotFound
from transfer_engine.service.boundary import answer
from transfer_engine.service.wire.words import Refused

NO_DATA_MANAGEMENT: Final = (
    "Interactive data management is not offered: this service moves files and looks into no directories; "
    "use a client of the storage itself"
)


class Foreign:
    """The handlers of `/dm` and `/cs`: they answer as FTS3 does where nothing is registered."""

    async def no_data_management(self, _: web.Request) -> web.Response:
        """Directories and single files are not looked at."""
        raise Refused(NO_DATA_MANAGEMENT)

    async def registered(self, _: web.Request) -> web.Response:
        """Has the caller registered with a cloud?"""
        return answer(value=False)

    async def no_user(self, request: web.Request) -> web.Response:
        """The caller is not registered."""
        raise NotFound(_no_user(request))

    async def no_grant(self, request: web.Request) -> web.Response:
        """Nothing was granted."""
        raise Refused(_no_user(request))

    async def no_service(self, request: web.Request) -> web.Response:
        """The cloud is not registered."""
        raise Forbidden(f"No registration information found for the service {_name(request)}")

    async def no_content(self, request: web.Request) -> web.Response:
        """The same, of a directory."""
        if not request.query.get("surl"):
            raise Refused("Missing surl parameter", field="surl")
        return await self.no_service(request)


def _name(request: web.Request) -> str:
    return request.match_info["service"][:100].strip().upper()


def _no_user(request: web.Request) -> str:
    return f'No registered user for the service "{_name(request)}" has been found'
