"""docs/routes.md: what gateway/routes.json opens to whom, as a table for people."""

import json
from typing import Any

from render.browser import BODY_LIMIT
from render.nginx import ROUTES, SMALL_BODY

HEAD = """\
# Routes

Made from `gateway/routes.json` by `make golden`; a change here is lost.

What is not in this table is 404 for everybody. A known route without identity is 401, beyond the role 403, with another
method 405. Ollama gets the path as it is written here, never as a client spells it; a digest is checked first.

| path | methods | class | role | API | body | Ollama | |
|---|---|---|---|---|---|---|---|
"""
BODIES = {
    "none": "none",
    "small": f"{SMALL_BODY // 1024} kB",
    "inference": "`gateway.body_limit_mb`",
    "unlimited": "any size",
}
TAILS = {"model": "<name>", "digest": "sha256:<64 hex>"}


def markdown() -> str:
    """The whole page. Raises: KeyError for a kind of body or path that has no words here yet."""
    table: dict[str, Any] = json.loads(ROUTES.read_text())
    rows = sorted(table["routes"], key=lambda row: str(row["path"]))
    megabytes = BODY_LIMIT // 1024**2
    never = "\n".join(f"- `{path}`{_refused(path, table['declared'])}" for path in sorted(table["never"]))
    return (
        HEAD
        + "".join(_row(row) for row in rows)
        + f"\nOn the browser's name a body may have {megabytes} MB: it is read before its session is known.\n"
        + "\n## Never\n\nRoutes that Ollama has, and nobody gets, an admin neither: they call out, change what is "
        f"declared, or are Ollama's own account.\n\n{never}\n"
        + f"\nThe routes are those of Ollama {' and '.join(table['pinned'])}; another version is refused until its own "
        "are read.\n"
    )


def _row(row: dict[str, Any]) -> str:
    tail = TAILS[row["tail"]] if "tail" in row else ""
    cells = (
        f"`{row['path']}{tail}`",
        " ".join(row["methods"]),
        row["class"],
        row["role"],
        row["api"],
        BODIES[row["body"]],
        _versions(row),
        "; ".join(_notes(row)),
    )
    return f"| {' | '.join(cells)} |\n"


def _versions(row: dict[str, Any]) -> str:
    since, until = row.get("since"), row.get("until")
    words = [f"from {since}" if since else "", f"below {until}" if until else ""]
    return ", ".join(word for word in words if word) or "all"


def _notes(row: dict[str, Any]) -> list[str]:
    notes = {
        "own": "the gateway's own",
        "list": "only models that the caller may use",
        "hides": "other methods are 404",
        "page": "also on the browser's name",
    }
    needs = [f"needs `gateway.{row['needs']}`"] if "needs" in row else []
    return [words for key, words in notes.items() if row.get(key)] + needs


def _refused(path: str, declared: list[str]) -> str:
    return ": models come and go by `models:` in the stack file" if path in declared else ""
