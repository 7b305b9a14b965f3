"""Sphinx's configuration of the documentation site; `make docs` runs build.py, which uses it."""

import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]  # Of the copy: build/docs-source/conf.py.
sys.path.insert(0, str(ROOT))

import cnn_jax  # noqa: E402

project = "cnn_jax"
author = "The cnn_jax authors"
copyright = "the cnn_jax authors"
version = release = cnn_jax.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]

myst_enable_extensions = ["colon_fence", "attrs_block"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # Outputs are those that are committed; a test executes the notebooks.
default_role = "code"
suppress_warnings = ["myst.header"]  # Reports begin their sections at any level.

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # The signature of the source says them.
autodoc_preserve_defaults = True  # As in the source: os.environ, not what it holds at the build.
# A package documents what it defines; what it offers of its modules is documented there.
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Returns holds a description alone, in which a colon separates no type.
napoleon_custom_sections = [("Returns", "generic"), ("Yields", "generic")]

html_theme = "sphinx_book_theme"
html_title = "cnn_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "repository_url": "https://github.com/cnn-jax/cnn_jax",
    "use_repository_button": True,
    "use_download_button": False,
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
}

CODE = re.compile(r"(``[^`]*``|`[^`]*`)")
ARGUMENT = re.compile(r"^\s*\*{1,2}\w+:")  # *args: and **options:, which napoleon reads.


def escape_docstring(app, what, name, obj, options, lines):  # noqa: ANN001, ANN201
    """Makes a docstring valid reStructuredText: prose in which only backticks have a meaning."""
    if what == "module":
        mark_indented_blocks(lines)
    in_example = False
    for number, line in enumerate(lines):
        stripped = line.strip()
        in_example = stripped.startswith(">>>") or (in_example and bool(stripped))
        indented = what == "module" and line[:1] == " "
        if in_example or indented or ARGUMENT.match(line) or stripped == "::":
            continue
        parts = CODE.split(line)
        for at, part in enumerate(parts):
            if at % 2:
                parts[at] = f"``{part.strip('`')}``"
            else:
                parts[at] = re.sub(r"([*|\\])|(?<=\w)(_)(?=\W|$)", r"\\\1\2", part)
                if at and part[:1].isalnum():  # `ConvUnit`s
                    parts[at] = "\\ " + parts[at]
        lines[number] = "".join(parts)


def mark_indented_blocks(lines):  # noqa: ANN001, ANN201
    """Makes literal blocks of what a module's docstring indents: tables, lists and code."""
    changed, inside = [], False
    for line in lines:
        if line[:1] == " " and not inside:
            changed += ["", "::", ""]
        elif line and line[:1] != " " and inside:
            changed.append("")
        inside = line[:1] == " " or (inside and not line)
        changed.append(line)
    lines[:] = changed


def skip_members(app, what, name, obj, skip, options):  # noqa: ANN001, ANN201
    """Leaves out named tuples' fields, which their class describes, and functions of libraries."""
    of_library = inspect.isfunction(obj) and not (obj.__module__ or "").startswith("cnn_jax")
    return True if of_library or type(obj).__name__ == "_tuplegetter" else skip


def shorten_signature(app, what, name, obj, options, signature, returned):  # noqa: ANN001, ANN201
    """Names what a generated signature represents, and leaves out flax's own fields."""
    text = re.sub(r"(, )?parent=<[^>]*>, name=None", "", signature or "")
    text = re.sub(r"<function (\w+)\.<locals>[^>]*>", r"\1(...)", text)
    text = re.sub(r"<(?:[a-z-]+ )*'?(?:\w+\.)*(\w+)'?>", r"\1", text.replace("<factory>", "..."))
    return (text or signature), returned


def setup(app):  # noqa: ANN001, ANN201
    """Has docstrings escaped before napoleon reads their sections."""
    app.connect("autodoc-process-docstring", escape_docstring, priority=100)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-skip-member", skip_members)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
