"""The unmodified `fts3` library, called from outside. Each context has a name; the empty one is the usual."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from calls import answer_calls
from fts3.rest.client import Ban, Context, Delegator, Inquirer, Submitter, easy

contexts: dict[str, Context] = {}


def connect(endpoint: str, name: str = "", **options: Any) -> Any:
    """A context; what the service says of itself."""
    contexts[name] = Context(endpoint, **options)
    return contexts[name].get_endpoint_info()


def call_easy(function: str, *args: Any, context: str = "", **kwargs: Any) -> Any:
    """One function of the easy interface; arguments that end in `_s` are seconds and become timedeltas."""
    spans = {key.removesuffix("_s"): timedelta(seconds=kwargs.pop(key)) for key in list(kwargs) if key.endswith("_s")}
    return getattr(easy, function)(contexts[context], *args, **kwargs, **spans)


def submit(transfers: list[dict[str, Any]], context: str = "", **params: Any) -> str:
    """A job as a user of the easy interface makes it; transfers are the arguments of `new_transfer`, or ready made."""
    made = [one if "sources" in one else easy.new_transfer(**one) for one in transfers]
    return easy.submit(contexts[context], easy.new_job(made, **params))


def submit_deletion(urls: list[str], context: str = "") -> str:
    """A deletion job."""
    return easy.submit(contexts[context], easy.new_delete_job(urls))


def request(method: str, *args: Any, context: str = "") -> Any:
    """A request of the library's own kind."""
    return getattr(contexts[context], method)(*args)


def delegation_info(context: str = "") -> Any:
    """What the service holds of the caller."""
    return Delegator(contexts[context]).get_info()


def low_level(context: str = "") -> list[str]:
    """The classes below the easy interface can all be made of a context."""
    return [type(kind(contexts[context])).__name__ for kind in (Ban, Delegator, Inquirer, Submitter)]


if __name__ == "__main__":
    answer_calls(
        {
            "connect": connect,
            "easy": call_easy,
            "submit": submit,
            "submit_deletion": submit_deletion,
            "request": request,
            "delegation_info": delegation_info,
            "low_level": low_level,
        }
    )
