"""Checks the built site: python docs/site/check.py [--chromium] [--screenshots=DIR].

Every link inside the site must lead to a page, and to an anchor that is there; no page may load
anything from the network; no signature may hold a value of the process that built the site. With
--chromium, pages are opened in headless Chromium, and messages on the console are faults.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path(__file__).parents[2] / "build" / "docs"
# Tags and attributes that load something when a page is opened.
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}
# In a signature: a representation such as <function f>, or the environment's variables.
VALUE = re.compile(r'class="default_value"><span class="pre">(&lt;|environ\()')
# rel of <link> that loads nothing.
NOT_LOADED = {"canonical", "next", "prev", "search", "index", "author", "copyright", "help"}
WIDTHS = {"wide": 1280, "phone": 390}
OPENED = (
    "index.html",
    "studies.html",
    "models.html",
    "reference/models.html",
    "notebooks/quickstart.html",
    "search.html",
)


class Page(HTMLParser):
    """The anchors, links and loaded addresses of a page, and the number of values in signatures."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.values = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what a tag names and where it leads."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        for loading, attribute in LOADED:
            if tag == loading and attribute in given:
                if set(given.get("rel", "").split()) & NOT_LOADED:
                    continue
                self.loaded.append(given[attribute])


def read_pages() -> dict[Path, Page]:
    """Returns all pages of the site."""
    pages = {}
    for path in sorted(SITE.rglob("*.html")):
        if path.relative_to(SITE).parts[0] == "_static":  # The theme's templates.
            continue
        page = Page()
        text = path.read_text()
        page.feed(text)
        page.values = len(VALUE.findall(text))
        pages[path] = page
    return pages


def find_faults(pages: dict[Path, Page]) -> list[str]:
    """Returns broken links, missing files, values, and what would be loaded from the network."""
    faults = []
    for path, page in pages.items():
        where = path.relative_to(SITE)
        if page.values:
            faults.append(f"{where}: {page.values} signatures hold values of the build")
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    faults.append(f"{where} loads {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                faults.append(f"{where}: {link} leads nowhere")
            elif parts.fragment and target in pages:
                anchors = pages[target].anchors
                if unquote(parts.fragment) not in anchors and link in page.links:
                    faults.append(f"{where}: {link} has no such anchor")
    return faults


def open_in_chromium(screenshots: Path | None) -> list[str]:
    """Opens pages in headless Chromium; returns what it says on its console."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        return ["no Chromium found"]
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        for name in OPENED:
            for kind, width in WIDTHS.items():
                picture = (screenshots or Path(folder)) / f"{name.replace('/', '-')}-{kind}.png"
                command = [browser, "--headless", "--no-sandbox", "--disable-gpu"]
                command += ["--enable-logging=stderr", "--hide-scrollbars"]
                command += [f"--window-size={width},1600", f"--user-data-dir={folder}/profile"]
                command += [f"--screenshot={picture}", f"file://{SITE / name}"]
                done = subprocess.run(command, capture_output=True, text=True, timeout=180)
                # [PST]: what the theme says of itself, such as the color mode.
                said = re.findall(r"CONSOLE(?![^\n]*\[PST\])[^\n]*", done.stderr)
                faults += [f"{name} at {width}: {line}" for line in said]
                if not picture.exists():
                    faults.append(f"{name} at {width}: no picture was made")
    return faults


def main() -> int:
    """Runs the checks and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--chromium", action="store_true", help="open pages in headless Chromium")
    parser.add_argument("--screenshots", type=Path, help="where their pictures are kept")
    given = parser.parse_args()
    pages = read_pages()
    if not pages:
        print(f"{SITE} holds no site: run make docs", file=sys.stderr)
        return 2
    faults = find_faults(pages)
    if given.chromium or given.screenshots:
        if given.screenshots:
            given.screenshots.mkdir(parents=True, exist_ok=True)
        faults += open_in_chromium(given.screenshots)
    print("\n".join(faults), file=sys.stderr)
    links = sum(len(page.links) for page in pages.values())
    print(f"{len(pages)} pages, {links:,} links, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
