"""The page for browsers: the files that lie in gateway/page/, and under which paths they are served."""

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "gateway" / "page"
INDEX = "index.html"
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
"""Suffix -> type of what is served; whatever else lies in the folder is nobody's business."""


def files() -> dict[str, str]:
    """Name -> text."""
    return {path.name: path.read_text() for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES}


def paths() -> dict[str, str]:
    """Path in the browser -> name of the file."""
    return {"/" if name == INDEX else f"/{name}": name for name in files()}
