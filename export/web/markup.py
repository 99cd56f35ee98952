"""The page's HTML, made of the studio's."""

from __future__ import annotations

import html
import re

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self';"
    " img-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'"
)
"""What the page may load: its own files, and nothing else; no script that stands in the page."""
_STUDIO = re.compile(r"<!-- studio: -->.*?<!-- /studio -->", re.S)
_PAGE = re.compile(r"<!-- page:(.*?)-->", re.S)


def page_html(studio: str, title: str) -> str:
    """Return the page's HTML: what only the studio has is left out, what only the page has is put in.

    Args:
        studio: The studio's index.html.
        title: Stands above the page and in its tab.
    """
    text = _PAGE.sub(lambda match: match[1].strip(), _STUDIO.sub("", studio))
    text = text.replace('"/static/', '"./')
    text = re.sub(r"\n\s*\n", "\n", text)  # the lines of what was left out
    return text.replace("{policy}", html.escape(POLICY, quote=False)).replace("{title}", html.escape(title))
