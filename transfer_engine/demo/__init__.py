"""Model storages: real bytes over real sockets, on this machine only, for demonstrations and tests."""
