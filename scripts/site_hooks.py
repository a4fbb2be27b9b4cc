"""Hooks of mkdocs.yml: pages from outside docs/, links to source files, and formulas as MathML."""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",  # the site has a first page of its own
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "clients/python/README.md": "python-client.md",
    "examples/README.md": "examples.md",
}
_SOURCES = {page: source for source, page in PAGES.items() if page != "index.md"}
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<file>[^)#\s:]+)(?P<heading>#[^)\s]*)?\)")
_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_files(files: Files, config: Any) -> Files:
    for page, source in _SOURCES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    icon = (ROOT / "service" / "static" / "icon.svg").read_text(encoding="utf-8")
    files.append(File.generated(config, "images/icon.svg", content=icon))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at the pages of the site. A link to a file that is not in it becomes the file's path."""
    source = _SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def link(found: re.Match[str]) -> str:
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), found["file"]))
        target = PAGES.get(file, file.removeprefix("docs/") if file.startswith("docs/") else None)
        if target is None:
            return found["text"] if found["text"].strip("`") == file else f"{found['text']} (`{file}`)"
        relative = posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")
        return f"[{found['text']}]({relative}{found['heading'] or ''})"

    return _outside_code(markdown, lambda text: _LINK.sub(link, text))


def on_page_content(content: str, **_: Any) -> str:
    """Render formulas as MathML, which browsers draw without a script."""

    def formula(found: re.Match[str]) -> str:
        display = "block" if found["open"] == "[" else "inline"
        return convert(html.unescape(found["latex"]).strip(), display=display)

    return _FORMULA.sub(formula, content)


def _outside_code(markdown: str, change: Any) -> str:
    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])
