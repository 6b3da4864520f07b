"""Data Docs: Great Expectations' own pages of every suite and what it found, to be opened without a network."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What its template fetches from elsewhere when a page is opened: styles, scripts, a logo that carries the time.
_FETCHED = re.compile(
    r"<link\b[^>]*https?://[^>]*>|<script\b[^>]*\bsrc=\"https?://[^>]*>\s*</script>|<img\b[^>]*https?://[^>]*>"
    r"|url\('https?://[^']*'\)|<p>[^<]*<a href=\"https://greatexpectations\.io/newsletter.*?</p>",
    re.DOTALL,
)
_HOME = re.compile(r'href="(?:\.\./)+index\.html[^"]*"')
_ELSEWHERE = re.compile(r'<a\b[^>]*href="\.\./[^>]*>(.*?)</a>|<link\b[^>]*href="\.\./[^>]*>', re.DOTALL)
_TIME = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_STYLE = """<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #24292f; }
table { border-collapse: collapse; width: 100%; } td, th { border-bottom: 1px solid #d8dee4; padding: .35rem .6rem;
text-align: left; vertical-align: top; overflow-wrap: anywhere; } .collapse { display: block; }
.fa-check-circle::before { content: "✓"; color: #1a7f37; } .fa-times::before { content: "✗"; color: #b3261e; }
.fa-exclamation-triangle::before { content: "!"; color: #b3261e; } button, .navbar { display: none; }
</style>"""


def write_data_docs(folder: Path, results: Mapping[str, Any]) -> None:
    """Write SUITE.html for every suite's result and index.html into `folder`, the same bytes for the same findings."""
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    renderer, view = ValidationResultsPageRenderer(run_info_at_end=True), DefaultJinjaPageView()
    lines = []
    for name, result in results.items():
        page = _TIME.sub("", _FETCHED.sub("", view.render(renderer.render(result))))
        # It links to pages of a whole site of its own, of which the index alone is here.
        page = _ELSEWHERE.sub(lambda link: link[1] or "", _HOME.sub('href="index.html"', page))
        (folder / f"{name}.html").write_text(page.replace("</head>", f"{_STYLE}\n</head>", 1), encoding="utf-8")
        met = sum(bool(one.success) for one in result.results)
        lines.append(
            f'<tr><td><a href="{html.escape(name)}.html">{html.escape(name)}</a></td>'
            f"<td>{met} of {len(result.results)}</td></tr>"
        )
    index = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Data Docs</title>{_STYLE}</head><body>\n'
        "<h1>Data Docs</h1>\n<table><thead><tr><th>Suite</th><th>Expectations met</th></tr></thead>\n<tbody>\n"
    )
    (folder / "index.html").write_text(
        index + "\n".join(lines) + "\n</tbody></table></body></html>\n", encoding="utf-8"
    )
