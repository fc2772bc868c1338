"""Whole lists from the server, which gives them a page at a time."""

from collections.abc import Callable, Iterator
from typing import Any

SIZE = 100


def pages(ask: Callable[..., Any], things: str, **wanted: Any) -> Iterator[Any]:
    """Yield everything that a list holds; a page is asked for when it is needed.

    Args:
        ask: lists, such as `backend.runs.run_service_list_runs`.
        things: what the answer calls them, such as "runs".
        wanted: how to list them: `filter`, `sort_by`, `page_size`, what `backend.scoped()` says.

    Raises:
        BackendError: the server stopped to answer.
    """
    token = ""
    while True:
        page = ask(**{"page_size": SIZE, **wanted}, page_token=token)
        yield from getattr(page, things) or ()
        if not (token := page.next_page_token or ""):
            return
