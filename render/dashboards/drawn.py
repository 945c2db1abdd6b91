"""A dashboard drawn from live answers, without Grafana: for the docs, and for whoever has only a Prometheus.

Whoever calls brings the way to ask; what is asked is what the dashboard's own JSON says.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from render import pictures
from render.dashboards.parts import Board, Query, Source, asked_itself, encode, question
from render.pictures import GREEN, INK, PALETTE, RED, Series, Tile, short

Get = Callable[[Source, str, dict[str, str]], Any]
"""(whom, path of its HTTP API, parameters) -> the `data` of its answer."""

PATHS = {
    (Source.PROMETHEUS, True): "/api/v1/query",
    (Source.PROMETHEUS, False): "/api/v1/query_range",
    (Source.LOKI, True): "/loki/api/v1/query",
    (Source.LOKI, False): "/loki/api/v1/query_range",
}
POINTS = 120


def draw(board: Board, get: Get, *, now: datetime, seconds: int = 3600) -> str:
    """One SVG of all its panels over the last `seconds`."""
    made = json.loads(encode(board))
    span = _Span(get, now.timestamp(), seconds)
    tiles: list[Tile] = []
    heads: dict[int, str] = {}
    for panel in made["panels"]:
        place = panel["gridPos"]
        if panel["type"] == "row":
            heads[place["y"]] = panel["title"]
            continue
        picture = _picture(panel, [question(target) for target in panel["targets"]], span)
        tiles.append(Tile(picture, place["x"], place["y"], place["w"], place["h"]))
    return pictures.board(board.title, tiles, heads)


class _Span:
    def __init__(self, get: Get, end: float, seconds: int) -> None:
        self.get, self.end, self.seconds = get, end, seconds
        self.step = max(15, seconds // POINTS)

    def ask(self, query: Query) -> list[Any]:
        text = asked_itself(query.text, window=f"{max(60, 4 * self.step)}s", whole=f"{self.seconds}s")
        given = {"query": text}
        if query.instant:
            given["time"] = f"{self.end:.0f}"
        else:
            given |= {"start": f"{self.end - self.seconds:.0f}", "end": f"{self.end:.0f}", "step": str(self.step)}
        return list(self.get(query.source, PATHS[(query.source, query.instant)], given)["result"])

    def labels(self) -> list[str]:
        return [f"{datetime.fromtimestamp(at, UTC):%H:%M}" for at in self.moments()]

    def moments(self) -> list[float]:
        start = self.end - self.seconds
        return [start + at * self.step for at in range(self.seconds // self.step + 1)]


def _picture(panel: Any, queries: Sequence[Query], span: _Span) -> str:
    room = pictures.room(panel["gridPos"]["w"], panel["gridPos"]["h"])
    title, unit = panel["title"], panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
    if panel["type"] == "stat":
        return _number(panel, span.ask(queries[0]), unit, room)
    if panel["type"] == "timeseries":
        found = [(query, row) for query in queries for row in span.ask(query)]
        series = [
            Series(_name(query, row["metric"]), _values(row, span), PALETTE[at % len(PALETTE)])
            for at, (query, row) in enumerate(found)
        ]
        return pictures.lines(title, span.labels(), series, unit, room)
    rows = span.ask(queries[0])
    if panel["type"] == "bargauge":
        named = [(_name(queries[0], row["metric"]), float(row["value"][1])) for row in rows]
        return pictures.bars(title, sorted(named, key=lambda pair: -pair[1]), unit, size=room)
    if panel["type"] == "table":
        heads = sorted({label for row in rows for label in row["metric"]})
        cells = [
            [*(row["metric"].get(head, "") for head in heads), short(float(row["value"][1]), unit)] for row in rows
        ]
        return pictures.table(title, [[*heads, "value"], *cells], room)
    lines = sorted(((int(at), text) for row in rows for at, text in row["values"]), reverse=True)
    said = [[f"{datetime.fromtimestamp(at / 1e9, UTC):%H:%M:%S}  {text}"] for at, text in lines[:20]]
    return pictures.table(title, [[""], *said], room)


def _number(panel: Any, rows: Sequence[Any], unit: str, room: pictures.Size) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    if not rows:
        return pictures.number(panel["title"], "none", size=room)
    value = float(rows[0]["value"][1])
    if unit == "short" and isfinite(value):
        value = round(value)
    words = {
        each: word["text"] for mapping in defaults.get("mappings", []) for each, word in mapping["options"].items()
    }
    colour = "text"
    for step in defaults["thresholds"]["steps"]:
        if step.get("value") is None or value >= step["value"]:
            colour = step["color"]
    shown = words.get(f"{value:g}") or short(value, unit)
    return pictures.number(panel["title"], shown, {"red": RED, "green": GREEN}.get(colour, INK), room)


def _name(query: Query, labels: dict[str, str]) -> str:
    if not query.legend:
        return ", ".join(labels.values()) or "value"
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), query.legend).strip() or "value"


def _values(row: Any, span: _Span) -> list[float | None]:
    """One for each moment; an answer leaves out those that it knows nothing of."""
    known = {round(float(at)): float(value) for at, value in row["values"]}
    return [known.get(round(at)) for at in span.moments()]
