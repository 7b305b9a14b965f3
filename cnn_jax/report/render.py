"""A report's words and table as Markdown, as plain text for a terminal, and as one self-contained HTML page."""

import base64
import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True)
class Table:
    """A row a net, a cell a column; what stands in the first column is the row's name."""

    title: str
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Sheet:
    """All that a report says, as plain text; a renderer escapes it and adds nothing."""

    title: str
    facts: tuple[tuple[str, str], ...]  # (name, value)
    progress: str
    states: tuple[tuple[str, str, str], ...]  # (net, ok | part | bad | none, how far its runs came)
    tables: tuple[Table, ...]
    notes: tuple[tuple[str, str], ...]  # (footnote mark or a lead, text)
    missing: tuple[str, ...]
    command: str
    configs: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]  # (net, ((path in the study's folder, JSON), ...))
    explained: str  # below the tables
    caption: str  # below the figure
    pictures: tuple[tuple[str, str], ...] = ()  # (file in the study's folder, caption) beside the figure


def text(sheet: Sheet) -> str:
    """The tables and what is missing, for a terminal."""
    lines = [sheet.title, sheet.progress, ""]
    for table in sheet.tables:
        lines += [*([table.title] if len(sheet.tables) > 1 else []), *_aligned(table), ""]
    lines += [f"{mark}: {note}" for mark, note in sheet.notes]
    if sheet.missing:
        lines += ["", "Missing:", *(f"  {line}" for line in sheet.missing), f"To complete them: {sheet.command}"]
    return "\n".join(lines) + "\n"


def _aligned(table: Table) -> list[str]:
    rows = [table.columns, *table.cells]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    rows.insert(1, tuple("-" * width for width in widths))
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def markdown(sheet: Sheet) -> str:
    """The page as GitHub-flavoured Markdown, with report.png beside it."""
    lines = [f"# {_md(sheet.title)}", "", *(f"- **{name}**: {_md(value)}" for name, value in sheet.facts if value)]
    lines += ["", f"**{_md(sheet.progress)}**", ""]
    lines += [f"- {_md(net)}: {_md(state)}" for net, _, state in sheet.states]
    for table in sheet.tables:
        lines += ["", f"## {_md(table.title)}", ""]
        lines += [_md_row(table.columns), _md_row(["---", *["---:"] * (len(table.columns) - 2), "---"])]
        lines += [_md_row(map(_md, row)) for row in table.cells]
    lines += ["", sheet.explained, "", *(f"- **{_md(mark)}**: {_md(note)}" for mark, note in sheet.notes)]
    lines += ["", "## Figure", "", f"![{_md(sheet.title)}](report.png)", "", sheet.caption]
    for file, caption in sheet.pictures:
        lines += ["", f"![{_md(caption)}]({quote(file)})", "", caption]
    if sheet.missing:
        lines += ["", "## Missing", "", *(f"- {_md(line)}" for line in sheet.missing), "", "To complete them:"]
        lines += ["", *(f"    {line}" for line in sheet.command.splitlines())]
    links = [(net, path) for net, files in sheet.configs for path, _ in files]
    if links:
        lines += ["", "## Settings", "", *(f"- {_md(net)}: [{_md(path)}]({quote(path)})" for net, path in links)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def _md(value: str) -> str:
    return re.sub(r"([\\`*\[\]|])", r"\\\1", " ".join(value.split())).replace("&", "&amp;").replace("<", "&lt;")


def _md_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


CSS = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --page: #fff; --box: #f6f8fa;
  --ok: #1a7f37; --part: #9a6700; --bad: #cf222e }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --page: #0d1117;
  --box: #161b22; --ok: #3fb950; --part: #d29922; --bad: #f85149 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 70rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem } h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem }
p, .notes, figcaption { max-width: 52rem } small, figcaption { color: var(--soft); font-size: .875rem }
code, pre { font: .85rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: .75rem; margin: .5rem 0;
  white-space: pre-wrap }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; font-size: .925rem }
.facts dt { color: var(--soft) } .facts dd { margin: 0 }
.runs { list-style: none; display: grid; grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); gap: .5rem;
  margin: .75rem 0; padding: 0; font-size: .875rem }
.runs li { border: 1px solid var(--line); border-left: 4px solid var(--soft); border-radius: 4px; padding: .3rem .6rem }
.runs b { display: block } .runs .ok { border-left-color: var(--ok) } .runs .part { border-left-color: var(--part) }
.runs .bad { border-left-color: var(--bad) }
.table { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .925rem;
  font-variant-numeric: tabular-nums; overflow-wrap: normal }
th, td { padding: .4rem .75rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal;
  border-bottom: 2px solid var(--line) }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--page) }
tbody small { display: block; line-height: 1.2 }
.notes { padding-left: 1.2rem; font-size: .875rem } figure { margin: 0 }
figure img { max-width: 100%; margin-top: 2rem }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1rem }
.panels svg { width: 100%; height: auto; max-width: 40rem } .panels text { font-family: inherit !important }
details { border: 1px solid var(--line); border-radius: 6px; padding: .4rem .75rem; margin: .4rem 0 }
summary { cursor: pointer }
"""


def page(sheet: Sheet, svgs: list[str], pictures: list[bytes] = ()) -> str:
    """The report as one HTML page: styles and figure inside, light or dark as the reader's system is.

    pictures: the PNG files of sheet.pictures.
    """
    e = html.escape
    facts = "".join(f"<dt>{e(name)}</dt><dd>{_fact(name, value)}</dd>" for name, value in sheet.facts if value)
    states = "".join(f'<li class="{kind}"><b>{e(net)}</b> {e(state)}</li>' for net, kind, state in sheet.states)
    tables = "\n".join(map(_table, sheet.tables))
    shown = "\n".join(_picture(caption, png) for (_, caption), png in zip(sheet.pictures, pictures, strict=True))
    notes = "".join(f"<li><b>{e(mark)}</b>: {e(note)}</li>" for mark, note in sheet.notes)
    missing = ""
    if sheet.missing:
        lines = "".join(f"<li>{e(line)}</li>" for line in sheet.missing)
        missing = f"<h2>Missing</h2>\n<ul>{lines}</ul>\n<p>To complete them:</p><pre>{e(sheet.command)}</pre>"
    configs = "<h2>Settings</h2>\n" + "".join(map(_config, sheet.configs)) if sheet.configs else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{e(sheet.title)}</title>
<style>{CSS}</style>
</head>
<body>
<h1>{e(sheet.title)}</h1>
<dl class="facts">{facts}</dl>
<h2>{e(sheet.progress)}</h2>
<ul class="runs">{states}</ul>
{tables}
<p><small>{e(sheet.explained)}</small></p>
<ul class="notes">{notes}</ul>
<h2>Figure</h2>
<figure><div class="panels" role="img" aria-label="{e(sheet.title)}">
{"".join(svgs)}</div>
<figcaption>{e(sheet.caption)}</figcaption></figure>
{shown}{missing}
{configs}</body>
</html>
"""


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in table.columns)
    body = "".join(f"<tr>{_th(net)}{''.join(map(_td, rest))}</tr>\n" for net, *rest in table.cells)
    return f"""<h2>{html.escape(table.title)}</h2>
<div class="table" tabindex="0"><table><thead><tr>{head}</tr></thead>
<tbody>
{body}</tbody></table></div>"""


def _picture(caption: str, png: bytes) -> str:
    source, words = base64.b64encode(png).decode(), html.escape(caption)
    return f'<figure><img src="data:image/png;base64,{source}" alt="{words}"><figcaption>{words}</figcaption></figure>'


def _fact(name: str, value: str) -> str:
    return f"<code>{html.escape(value)}</code>" if name == "command" else html.escape(value)


def _config(net_files: tuple[str, tuple[tuple[str, str], ...]]) -> str:
    net, files = net_files
    files = "".join(f"<p><code>{html.escape(path)}</code></p><pre>{html.escape(json)}</pre>" for path, json in files)
    return f"<details><summary>{html.escape(net)}</summary>{files or '<p>not started</p>'}</details>\n"


def _th(net: str) -> str:
    return f'<th scope="row">{html.escape(net)}</th>'


def _td(cell: str) -> str:
    """The mark of an unfinished run goes small under its figure, so that the figures stay in a column."""
    return re.sub(r" (\(at step .*\))$", r"<small>\1</small>", f"<td>{html.escape(cell)}") + "</td>"
