"""Replace links to files outside of docs/ with links to repo_url; without a repo_url, with their text."""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

LINK = re.compile(r"\[([^]]*)\]\(\.\./([^)#]*)(#[^)]*)?\)")
ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Return a page with these links replaced.

    Raises:
        PluginError: the file of a link does not exist.
    """

    def replace(link: re.Match[str]) -> str:
        text, path = link[1], link[2]
        if not (ROOT / path).exists():
            raise PluginError(f"{page.file.src_path} links to ../{path}, which does not exist.")
        return f"[{text}]({config.repo_url}/blob/main/{path})" if config.repo_url else text

    return LINK.sub(replace, markdown)
