"""Which storages and links are in trouble, and how much may run there meanwhile. Pure."""

from transfer_engine.health.monitor import Health
from transfer_engine.health.wording import Row

__all__ = ["Health", "Row"]
