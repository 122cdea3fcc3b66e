"""HTML to PDF: WeasyPrint behind one function that reaches for nothing outside.

    html("invoice.html", …)  →  to_pdf(html, "invoice.css")  →  bytes of a PDF/A-3b

Templates and style sheets are this package's own. Whatever a template is given is escaped, so that no name
of a customer becomes markup, and a template that asks for a word it was not given is a bug that shows. No
address is ever fetched: a page is its text, the package's style sheet and the system's DejaVu Sans, which is
embedded. The PDF/A variant is the one that may carry the e-invoice's XML inside.

WeasyPrint logs problems of a page and goes on. They would be faults of our templates or of the machine's
fonts, so each is a Python warning here: seen once in service, an error in tests. Its fonts are not made for
threads; one page is laid out at a time.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from weasyprint import CSS, HTML
from weasyprint.text.fonts import FontConfiguration
from weasyprint.urls import FatalURLFetchingError

PDF_VARIANT = "pdf/a-3b"
SHARED_STYLE = "page.css"

_TEMPLATES = "reports.templates"
_lock = threading.Lock()


class OutsideAddressError(FatalURLFetchingError):  # type: ignore[misc]  # WeasyPrint has no types
    """A page asked for something outside itself: a bug in a template, never followed."""


def html(template: str, /, **values: object) -> str:
    """The template of that name with `values`, each escaped where it is printed."""
    return _environment().get_template(template).render(**values)


def to_pdf(page: str, style_sheet: str) -> bytes:
    """`page` (HTML of our templates) laid out by a style sheet of this package, on top of SHARED_STYLE.

    The same page gives the same bytes on the same machine: dates and title come from the page itself, the
    file's identifier from its text.
    """
    with _lock, _complaints() as said:
        written = _written(page, style_sheet)
    for complaint in said:
        warnings.warn(f"{style_sheet}: {complaint}", RuntimeWarning, stacklevel=2)
    return written


def _written(page: str, style_sheet: str) -> bytes:
    written: bytes | None = HTML(string=page, url_fetcher=_refuse).write_pdf(
        stylesheets=[_style(SHARED_STYLE), _style(style_sheet)],
        font_config=_fonts(),
        pdf_variant=PDF_VARIANT,
        pdf_identifier=hashlib.sha256(page.encode()).hexdigest()[:32].encode(),
    )
    assert written is not None, "without a target WeasyPrint returns the bytes"
    return written


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


@cache
def _style(name: str) -> CSS:
    text = (files(_TEMPLATES) / name).read_text(encoding="utf-8")
    return CSS(string=text, url_fetcher=_refuse)


@cache
def _fonts() -> FontConfiguration:
    """One for the process: each new one costs a quarter of a megabyte that never comes back."""
    return FontConfiguration()


def _refuse(url: str, *_: Any, **__: Any) -> dict[str, Any]:
    raise OutsideAddressError(f"a page asked for {url}; pages fetch nothing")


class _Gathering(logging.Handler):
    """Keeps what is logged at WARNING and above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What WeasyPrint complains of within the block."""
    gathering = _Gathering()
    logger = logging.getLogger("weasyprint")
    logger.addHandler(gathering)
    try:
        yield gathering.said
    finally:
        logger.removeHandler(gathering)
