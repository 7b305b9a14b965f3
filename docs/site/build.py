"""Builds the documentation site: python docs/site/build.py, or make docs.

The pages are gathered in build/docs-source, at the places where the repository has them, so that
their links to one another hold; links to other files of the repository lead to GitHub. Sphinx
then writes the site into build/docs, and a warning is an error.
"""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import gallery  # noqa: E402
import models_page  # noqa: E402
import reference  # noqa: E402

SOURCE, SITE = ROOT / "build" / "docs-source", ROOT / "build" / "docs"
REPOSITORY = "https://github.com/cnn-jax/cnn_jax/blob/main/"
PATTERNS = (
    "docs/*.md",
    "docs/site/*.md",
    "docs/results/**/*.md",
    "docs/*.png",
    "docs/results/**/*.png",
    "benchmarks/README.md",
    "benchmarks/*.png",
    "benchmarks/*.svg",
    "notebooks/*.ipynb",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
BADGE = re.compile(r"\[!\[([^\]]+)\]\(https://[^)]+\)\]")  # Its picture lies on another server.


def gather() -> int:
    """Writes all sources of the site; returns the number of pages."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    files = {p.relative_to(ROOT) for pattern in PATTERNS for p in ROOT.glob(pattern)}
    files.discard(Path("docs/site/index.md"))
    pages = {path: (ROOT / path) for path in files}
    made = {Path("studies.md"): gallery.make_page(), Path("models.md"): models_page.make_page()}
    made |= {Path("reference") / name: text for name, text in reference.make_pages().items()}
    for path in sorted(pages):
        target = SOURCE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".md", ".ipynb"):
            text = redirect_links(pages[path].read_text(), path, pages.keys() | made.keys())
            head = "---\norphan: true\n---\n\n" if "results" in path.parts else ""
            target.write_text((head if path.suffix == ".md" else "") + text)
        else:
            shutil.copy(pages[path], target)
    index = (HERE / "index.md").read_text()
    for path, text in {**made, Path("index.md"): index}.items():
        (SOURCE / path).parent.mkdir(parents=True, exist_ok=True)
        (SOURCE / path).write_text(text)
    shutil.copy(HERE / "conf.py", SOURCE)
    (SOURCE / "_static").mkdir()
    shutil.copy(HERE / "site.css", SOURCE / "_static")
    return len([p for p in (*pages, *made) if p.suffix in (".md", ".ipynb")]) + 1


def redirect_links(text: str, page: Path, pages: set[Path]) -> str:
    """Has links of a page that lead to files outside of the site lead to the repository."""

    def replace(match: re.Match) -> str:
        target, mark, anchor = match[2].partition("#")
        if "://" in target or target.startswith(("mailto:", "attachment:")) or not target:
            return match[0]
        place = (ROOT / page).parent / target
        if not place.exists():
            return match[0]
        inside = Path(*place.resolve().relative_to(ROOT).parts)
        if inside in pages:
            return match[0]
        if (inside / "README.md") in pages:
            return f"{match[1]}{target.rstrip('/')}/README.md{mark}{anchor}{match[3]}"
        return f"{match[1]}{REPOSITORY}{inside.as_posix()}{mark}{anchor}{match[3]}"

    return LINK.sub(replace, BADGE.sub(r"[\1]", text))


def main() -> int:
    """Gathers the sources, runs Sphinx and returns its exit code."""
    began = time.perf_counter()
    pages = gather()
    shutil.rmtree(SITE, ignore_errors=True)
    options = ["-W", "--keep-going", "-q", "-j", "4", "-b", "html"]
    command = [sys.executable, "-m", "sphinx", *options, str(SOURCE), str(SITE)]
    code = subprocess.run(command, check=False).returncode
    if not code:
        seconds = time.perf_counter() - began
        print(f"{pages} pages in {seconds:.0f} s, no warnings: {SITE / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
