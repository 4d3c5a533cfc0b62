"""What the pages in HTML have in common: parts of their files, style and script.

`shared.css` and `shared.js` come before a page's own style and script.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files


def asset(package: str, name: str) -> str:
    """The text of a file beside a package's modules."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def style(package: str) -> str:
    """The style of a package's page.css, behind what the pages share."""
    return asset(__package__, "shared.css") + asset(package, "page.css")


def script(package: str) -> str:
    """The script of a package's page.js, behind what the pages share."""
    return asset(__package__, "shared.js") + asset(package, "page.js")


def fill(text: str, parts: Mapping[str, str]) -> str:
    """The template with its parts, in one pass: what a part holds is never filled in again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], text)


def script_safe(text: str) -> str:
    """JSON (in ASCII) in which no name can end the script element or open a comment."""
    return text.replace("<", "\\u003c")
