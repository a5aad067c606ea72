"""Opens all pages of the built site in Chromium, wide and narrow, light and dark.

    python tools/check_site.py .build/site .build/screenshots

It fails if a page writes an error to the console, requests a missing file or another machine, has a
broken link or anchor, is wider than a phone, or has an image without alternative text. The
screenshots are for review.
"""

import functools
import http.server
import pathlib
import shutil
import sys
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator

from playwright.sync_api import BrowserContext, Page, TimeoutError, sync_playwright

LOOKS = [
    (f"{name}-{scheme}", width, scheme)
    for name, width in (("desktop", 1280), ("phone", 400))
    for scheme in ("light", "dark")
]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# What a page links to, what there is to link to, and what it shows.
SEEN = """() => ({
    links: [...document.querySelectorAll("a[href]")].map(a => a.href),
    anchors: [...document.querySelectorAll("[id], a[name]")].map(e => e.id || e.name),
    headings: document.querySelectorAll("h1").length,
    mute: [...document.querySelectorAll("img")].filter(i => !i.alt).map(i => i.src),
    broken: [...document.querySelectorAll("img")].filter(i => !i.naturalWidth).map(i => i.src),
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
})"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Visit:
    """One page as the browser shows it, and what went wrong meanwhile."""

    def __init__(self, page: Page, home: str, path: str) -> None:
        self.faults: list[str] = []
        page.on("console", lambda m: m.type in ("error", "warning") and self._add(m.type, m.text))
        page.on("pageerror", lambda error: self._add("exception", error))
        page.on("requestfailed", lambda request: self._add("failed", request.url))
        page.on("request", lambda request: self._check_request(request.url, home))
        page.on("response", lambda got: got.status >= 400 and self._add(got.status, got.url))
        page.goto(home + path, wait_until="load")
        self.seen = page.evaluate(SEEN)
        for what in ("mute", "broken"):
            self.faults += [f"{what} image: {source}" for source in self.seen[what]]
        if self.seen["wide"] > 0:
            self._add("too wide by", f"{self.seen['wide']} px")
        if self.seen["headings"] != 1:
            self._add("headings of the first level", self.seen["headings"])

    def _add(self, kind: object, what: object) -> None:
        self.faults.append(f"{kind}: {what}")

    def _check_request(self, url: str, home: str) -> None:
        if not url.startswith((home, "data:", "blob:")):
            self._add("asks another machine", url)


def broken_links(seen: dict[str, dict], home: str) -> Iterator[str]:
    """Returns what leads nowhere, of the links of all pages, by their paths."""
    for path, page in seen.items():
        for link in sorted(set(page["links"])):
            url, _, anchor = link.partition("#")
            if not url.startswith(home):
                if urllib.parse.urlsplit(url).scheme != "https":
                    yield f"{path}: neither a page nor https: {link}"
                continue
            target = url.removeprefix(home) or "index.html"
            if target not in seen:
                yield f"{path}: no such page: {link}"
            elif anchor and urllib.parse.unquote(anchor) not in seen[target]["anchors"]:
                yield f"{path}: no such anchor: {link}"


def check_search(context: BrowserContext, home: str) -> Iterator[str]:
    """Types into the search box, as a reader would, and returns what is wrong with the answer."""
    page = context.new_page()
    page.goto(home + "index.html", wait_until="networkidle")
    page.keyboard.press("/")
    page.keyboard.type("BackupAndRestore")
    try:
        page.wait_for_selector(".md-search-result__link", timeout=10_000)
    except TimeoutError:
        yield "search: finds nothing"
    page.close()


def check(site: pathlib.Path, shots: pathlib.Path, home: str) -> Iterator[str]:
    """Visits all pages and returns what is wrong with them."""
    pages = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    seen = {}
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium, args=FLAGS, headless=True
        )
        for path in pages:
            for look, width, scheme in LOOKS:
                page = context.new_page()
                page.set_viewport_size({"width": width, "height": 800})
                page.emulate_media(color_scheme=scheme)
                visit = Visit(page, home, path)
                seen[path] = visit.seen
                name = path.removesuffix(".html").replace("/", "-")
                page.screenshot(path=shots / f"{name}-{look}.png", full_page=True)
                page.close()
                yield from (f"{path}, {look}: {fault}" for fault in visit.faults)
        yield from check_search(context, home)
        context.close()
    yield from broken_links(seen, home)
    print(f"Looked at {len(pages)} pages in {len(LOOKS)} ways: {shots}")


def main(site: pathlib.Path, shots: pathlib.Path) -> int:
    """Serves the site on this machine alone, and returns how many faults it has."""
    shutil.rmtree(shots, ignore_errors=True)
    shots.mkdir(parents=True)
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        faults = list(check(site, shots, f"http://127.0.0.1:{server.server_port}/"))
        server.shutdown()
    print("\n".join(faults) or "No faults found.")
    return len(faults)


if __name__ == "__main__":
    sys.exit(main(*map(pathlib.Path, sys.argv[1:3])) > 0)
