"""What was measured, against its limit: as a file for programs and as a table for people."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from fortress import paths

LATEST = paths.CHECKOUT / "bench" / "results" / "latest.json"


@dataclass(frozen=True)
class Result:
    """One figure; one without a limit is there to be read, and is always ok."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    """The most that it may be."""
    at_least: float | None = None

    @property
    def ok(self) -> bool:
        # Asked this way round, so that a value that is no number is not ok.
        most, least = (
            self.limit is None or self.value <= self.limit,
            self.at_least is None or self.value >= self.at_least,
        )
        return most and least

    @property
    def judged(self) -> bool:
        return self.limit is not None or self.at_least is not None

    def row(self) -> dict[str, Any]:
        value = round(self.value, 3)
        row = {"name": self.name, "value": value, "unit": self.unit, "limit": self.limit, "ok": self.ok}
        return row if self.at_least is None else row | {"at_least": self.at_least}


def write(results: Sequence[Result], file: Path = LATEST) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([each.row() for each in results], indent=1) + "\n")


def table(results: Sequence[Result]) -> Table:
    shown = Table("figure", "value", "unit", "limit", "")
    for column in (1, 3):
        shown.columns[column].justify = "right"
    for each in results:
        verdict = "" if not each.judged else "[green]ok[/]" if each.ok else "[red]not kept[/]"
        shown.add_row(each.name, f"{each.value:.3f}".rstrip("0").rstrip("."), each.unit, _limit(each), verdict)
    return shown


def _limit(result: Result) -> str:
    if result.at_least is not None:
        return f">= {result.at_least:g}"
    return "" if result.limit is None else f"{result.limit:g}"


def exit_code(results: Sequence[Result]) -> int:
    return 0 if results and all(each.ok for each in results) else 1
