"""The page of studies: a card for each folder of docs/results, built from the files in it."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from cnn_jax.report.parts import CLAIM_COLUMNS, make_claim_row

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
HEAD = """# Studies

Each card is a study that was run: our figure, the paper's numbers beside ours, and what came of the
paper's claims. The reports hold the tables, settings and curves in full.
[All claims](docs/results/claims.md) are on one page, with the rule by which they are judged.
"""
# What a report's head says of how a study was run.
FACTS = ("command", "date", "hardware", "commit")


def make_page() -> str:
    """Returns the page, in Markdown."""
    folders = sorted(path.parent for path in RESULTS.glob("*/study.json"))
    return "\n".join([HEAD, *map(make_card, folders), describe_studies()])


def make_card(folder: Path) -> str:
    """Returns a study's card."""
    study = json.loads((folder / "study.json").read_text())
    claims = json.loads((folder / "claims.json").read_text())["claims"]
    report = f"docs/results/{folder.name}/report.md"
    on = f", on {study['data']}" if study.get("data") else ""
    lines = [f"## {study['title']}{on}", "", study["paper"], ""]
    if (folder / "report.png").exists():
        lines += [f"![Figure](docs/results/{folder.name}/report.png)", ""]
    counts = Counter(claim["verdict"] for claim in claims)
    if counts:
        told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        lines += [f"**Claims**: {told}. [The report]({report})", ""]
        lines += [
            "| the paper's claim | verdict | unit | paper | ours |",
            "|---|---|---|---:|---:|",
        ]
        lines += [_claim_row(claim) for claim in claims]
    else:
        lines.append(f"[The report]({report})")
    facts = read_facts(folder)
    lines += ["", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    return "\n".join(lines)


def _claim_row(claim: dict[str, Any]) -> str:
    """Returns the row of a claim, with the figures as the report has them."""
    shown = dict(zip(CLAIM_COLUMNS, make_claim_row(claim), strict=True))
    cells = [claim["statement"], claim["verdict"], *(shown[n] for n in ("unit", "paper", "ours"))]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def read_facts(folder: Path) -> dict[str, str]:
    """Returns the command, date, hardware and commit of a report."""
    found = re.findall(r"^- \*\*(\w+)\*\*: (.*)$", (folder / "report.md").read_text(), re.MULTILINE)
    facts = {name: value for name, value in found if name in FACTS}
    return {n: f"`{v}`" if n in ("command", "commit") else v for n, v in facts.items()}


def describe_studies() -> str:
    """Returns the table of all studies and what their presets cost."""
    from experiments import COSTS

    lines = ["## What each study costs", "", "| study | preset | cost |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {preset} | {words} |"
        for name, presets in COSTS.items()
        for preset, words in presets.items()
    ]
    return "\n".join(lines) + "\n"
