"""What the site adds to docs/: the repository's other pages, and links that work in both places.

On GitHub a page links to files as they lie in the repository. The site has the same pages under other names, so links
are rewritten while it is built; a file that is no page (a notebook, a YAML file) is copied into the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "model_repository/README.md": "model-repository.md",
    "serving/deploy/README.md": "deploy.md",
}  # in the repository: on the site
LINK = re.compile(r"(?<=\]\()([^)\s:#]+)(#[^)\s]*)?(?=\))")  # of Markdown, to a file


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files outside docs/ that this site has or links to."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    sources = [(ROOT / source, source) for source in PAGES]
    sources += [(path, f"docs/{path.name}") for path in sorted((ROOT / "docs").glob("*.md"))]
    for path, source in sources:
        for target in linked(path.read_text(), source):
            if not target.startswith("docs/") and target not in PAGES and files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite a page's links from where files lie in the repository to where they are on the site."""
    here = page.file.src_uri
    source = next((source for source, target in PAGES.items() if target == here), f"docs/{here}")

    def rewritten(match: re.Match[str]) -> str:
        target = in_repository(match[1], source)
        return posixpath.relpath(place_of(target), posixpath.dirname(here) or ".") + (match[2] or "")

    return LINK.sub(rewritten, markdown)


def linked(markdown: str, source: str) -> set[str]:
    """Return the files of the repository that a page links to."""
    targets = {in_repository(match[1], source) for match in LINK.finditer(markdown)}
    return {target for target in targets if (ROOT / target).is_file()}


def in_repository(link: str, source: str) -> str:
    """Resolve a page's link to a path in the repository; a folder's page is its README."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    return f"{target}/README.md" if f"{target}/README.md" in PAGES else target


def place_of(target: str) -> str:
    """Return where a file of the repository is on the site."""
    return PAGES.get(target) or target.removeprefix("docs/")
