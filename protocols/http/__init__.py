"""HTTP and WebDAV with third-party copy (HTTP-TPC)."""

from protocols.http.adapter import HttpAdapter

__all__ = ["HttpAdapter"]
