"""Renders a page as Markdown, and as one self-contained HTML file."""

import base64
import functools
import re
from importlib import resources
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from cnn_jax.report.elements import Figure, Page, join_cell
from cnn_jax.text import escape_markdown, escape_unprintable


def render_markdown(page: Page) -> str:
    """Returns the page as GitHub-flavored Markdown, which refers to PNG files in its folder."""
    environment = _make_environment(autoescape=False, finalize=_finalize_markdown)
    text = environment.get_template("page.md").render(page=page)
    return re.sub(r"\n{3,}", "\n\n", text)


def render_html(page: Page, pictures: dict[str, bytes]) -> str:
    """Returns the page as one HTML file that needs no other files.

    The colors are light or dark, as set in the reader's system.

    Args:
      page: The page.
      pictures: {name of the figure's file: content of its PNG file}.
    """
    environment = _make_environment(autoescape=True, finalize=_finalize_html)
    encoded = {name: base64.b64encode(png).decode() for name, png in pictures.items()}
    style = Markup(_read_template("style.css"))
    drawn = {
        figure.file: [Markup(svg) for svg in figure.svgs()] if figure.svgs else []
        for figure in page.find(Figure)
    }
    return environment.get_template("page.html").render(
        page=page, pictures=encoded, drawn=drawn, style=style
    )


def _read_template(name: str) -> str:
    return (resources.files("cnn_jax.report") / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _make_environment(autoescape: bool, finalize: Any) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read_template),
        autoescape=autoescape,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["join_cell"] = join_cell
    environment.filters["escape_unprintable"] = escape_unprintable
    environment.filters["lines"] = _keep_lines
    environment.filters["path"] = _quote_path
    return environment


def _quote_path(text: str) -> Markup:
    return Markup(quote(text, errors="surrogateescape"))


def _finalize_markdown(value: Any) -> Any:
    return value if isinstance(value, Markup) else escape_markdown(value)


def _finalize_html(value: Any) -> Any:
    return value if isinstance(value, Markup) else escape_unprintable(value)


def _keep_lines(text: str) -> Markup:
    """Returns text with its lines escaped for HTML and for printing, with their indentation."""
    lines = [
        Markup.escape(
            " " * (len(line) - len(line.lstrip(" "))) + escape_unprintable(line.lstrip(" "))
        )
        for line in text.splitlines()
    ]
    return Markup("\n").join(lines)
