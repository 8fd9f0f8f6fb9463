"""Talk to storages: one operation on the wire at a time, no queue, no database.

A leaf library, usable alone. `protocols.api` is the contract, `protocols.registry` picks the
adapter for a URL, `protocols.http` speaks HTTP/WebDAV with third-party copy.
"""
