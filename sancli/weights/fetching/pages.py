"""Web pages that come in place of a file, told apart by what they say."""

import html
import re
from pathlib import Path

QUOTA = re.compile(r"quota exceeded|too many users have viewed or downloaded|download quota", re.IGNORECASE)
PAGE = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body|title)\b", re.IGNORECASE | re.DOTALL)
TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
HEAD = 65_536
"""Bytes that are looked at: a page says what it is at its beginning."""


def page_in(path: Path) -> str | None:
    """What the web page in this file says, as half a sentence; None: it is no page."""
    with path.open("rb") as file:
        return page_of(file.read(HEAD))


def page_of(head: bytes) -> str | None:
    """What the web page that begins so says, as half a sentence; None: it is no page."""
    if not PAGE.match(head):
        return None
    text = head.decode("utf-8", errors="replace")
    if QUOTA.search(text):
        return quota()
    title = TITLE.search(text)
    words = " ".join(html.unescape(title[1]).split())[:120] if title else ""
    return f'it is a web page with the title "{words}"' if words else "it is a web page without a title"


def quota() -> str:
    """Half a sentence about a host's limit."""
    return "too many people have fetched it: the quota for this file is used up, on Google Drive for a day"
