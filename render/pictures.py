"""Pictures as SVG text: columns over days, lines over time, bars, numbers and tables, and a whole dashboard of them.

No script, no font and no colour from elsewhere, so a page that holds them is one file. Every text is escaped here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, isfinite, log, log10

LEFT, RIGHT, TOP, BOTTOM = 60, 8, 36, 26
BLUE, PALE, ORANGE, RED, GREY, GREEN, VIOLET = (
    "#2b6ca3",
    "#8fb8d8",
    "#d97b17",
    "#b3261e",
    "#8b95a1",
    "#2e7d4f",
    "#6b4fa0",
)
CELL, TALL = 50, 34
"""Of Grafana's grid, in the units of a dashboard's picture."""
PALETTE = (BLUE, ORANGE, GREEN, VIOLET, RED, PALE, GREY)
INK, FAINT, GRID = "#1c2733", "#5d6b79", "#e3e8ed"
FONT = "font-family='system-ui,-apple-system,Segoe UI,Roboto,sans-serif'"


@dataclass(frozen=True)
class Series:
    name: str
    values: Sequence[float | None]
    """One for each label; None where nothing is known."""
    colour: str = BLUE


@dataclass(frozen=True)
class Size:
    """Of a picture, in its own units: letters of 12 to 15 stay so in each."""

    width: int = 480
    height: int = 220


PLAIN = Size()


def short(value: float, unit: str = "") -> str:
    """A number as people read it: 1234567 is 1.2M; seconds and shares have their own words."""
    if not isfinite(value):
        return "none"
    if unit == "s":
        return _duration(value)
    if unit in ("percentunit", "%"):
        return f"{value * 100:.0f} %"
    if unit == "bytes":
        return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"), " ")
    text = _scaled(value, 1000, ("", "k", "M", "G", "T"), "")
    return text + {"reqps": "/s", "Bps": " B/s", "cps": "/s", "celsius": " °C", "watt": " W"}.get(unit, "")


def _duration(value: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(value) >= 2 * size:
            return f"{value / size:.0f} {name}"
    return (
        f"{value:.0f} s" if abs(value) >= 10 else f"{value * 1000:.0f} ms" if 0 < abs(value) < 1 else f"{value:.1f} s"
    )


def _scaled(value: float, step: int, names: Sequence[str], gap: str) -> str:
    power = 0
    while abs(value) >= step and power < len(names) - 1:
        value, power = value / step, power + 1
    digits = 0 if value == int(value) or abs(value) >= 100 else 1 if abs(value) >= 1 else 2
    return f"{value:.{digits}f}{gap if names[power] else ''}{names[power]}"


def columns(title: str, labels: Sequence[str], series: Sequence[Series], unit: str = "", size: Size = PLAIN) -> str:
    """Stacked columns, one for each label."""
    highest = max((sum(each.values[i] or 0 for each in series) for i in range(len(labels))), default=0)
    frame = _Frame(title, series, highest, unit, size)
    wide = frame.across / max(1, len(labels))
    parts = frame.axes(labels, wide / 2, wide)
    for at, label in enumerate(labels):
        bottom = frame.y(0)
        for each in series:
            value = each.values[at] or 0
            tall = frame.y(0) - frame.y(value)
            if tall <= 0:
                continue
            bottom -= tall
            parts.append(
                f"<rect x='{LEFT + at * wide + wide * 0.12:.1f}' y='{bottom:.1f}' width='{wide * 0.76:.1f}' "
                f"height='{tall:.1f}' fill='{each.colour}'>"
                f"<title>{escape(label)}: {escape(each.name)} {short(value, unit)}</title></rect>"
            )
    return _picture(title, parts, size)


def lines(title: str, labels: Sequence[str], series: Sequence[Series], unit: str = "", size: Size = PLAIN) -> str:
    """A line for each series; a gap where nothing is known."""
    known = [value for each in series for value in each.values if value is not None and isfinite(value)]
    frame = _Frame(title, series, max(known, default=0), unit, size)
    step = frame.across / max(1, len(labels) - 1)
    parts = frame.axes(labels, 0, step)
    for each in series:
        path, pen = "", "M"
        for at, value in enumerate(each.values):
            if value is None or not isfinite(value):
                pen = "M"
                continue
            path += f"{pen}{LEFT + at * step:.1f} {frame.y(value):.1f}"
            pen = "L"
        if path:
            parts.append(f"<path d='{path}' fill='none' stroke='{each.colour}' stroke-width='2'/>")
    return _picture(title, parts, size)


def bars(
    title: str, rows: Sequence[tuple[str, float]], unit: str = "", colour: str = BLUE, size: Size | None = None
) -> str:
    """One bar a row, in the order given; what is beyond ten rows, or the size, is summed into one."""
    most = 10 if size is None else max(1, (size.height - TOP) // 26 - 1)
    rest = rows[most:]
    shown = [*rows[:most], *([(f"{len(rest)} others", sum(value for _, value in rest))] if rest else [])]
    size = size or Size(PLAIN.width, TOP + 26 * max(1, len(shown)) + 6)
    top = 1 if unit == "percentunit" else max((value for _, value in shown), default=0) or 1
    parts = [_title(title)]
    if not shown:
        parts.append(_text(0, TOP + 16, "nothing", FAINT, 13))
    for at, (name, value) in enumerate(shown):
        y = TOP + at * 26
        long = max(1.5, min(1, value / top) * (size.width - 230))
        parts.append(_text(0, y + 15, _cut(name, 23), INK, 13))
        parts.append(f"<rect x='166' y='{y + 3}' width='{long:.1f}' height='16' rx='2' fill='{colour}'/>")
        parts.append(_text(173 + long, y + 16, short(value, unit), FAINT, 12))
    return _picture(title, parts, size)


def number(title: str, value: str, colour: str = INK, size: Size = PLAIN) -> str:
    parts = [_text(0, 13, _cut(title, max(8, size.width // 7)), FAINT, 13), _text(0, 62, value, colour, 34, weight=600)]
    return _picture(title, parts, size)


def table(title: str, rows: Sequence[Sequence[str]], size: Size = PLAIN) -> str:
    """Rows of text in columns of one width; the first row is the head."""
    parts = [_title(title)]
    wide = size.width / max((len(row) for row in rows), default=1)
    for at, row in enumerate(rows[: max(1, (size.height - TOP) // 22)]):
        for column, cell in enumerate(row):
            text = _cut(cell, int(wide / 7.4))
            parts.append(_text(column * wide, TOP + 10 + at * 22, text, FAINT if at == 0 else INK, 13))
    if len(rows) < 2:
        parts.append(_text(0, TOP + 36, "nothing", FAINT, 13))
    return _picture(title, parts, size)


@dataclass(frozen=True)
class Tile:
    """A picture and its place on Grafana's grid of 24 columns."""

    picture: str
    x: int
    y: int
    width: int
    height: int


def room(width: int, height: int) -> Size:
    """For the picture of a tile."""
    return Size(width * CELL - 28, height * TALL - 24)


def board(title: str, tiles: Sequence[Tile], heads: Mapping[int, str]) -> str:
    """A dashboard in one picture. heads: row of the grid -> the words above it."""
    gap = 8
    bottom = max([tile.y + tile.height for tile in tiles] + [y + 1 for y in heads], default=1)
    parts = [
        f"<rect width='1200' height='{bottom * TALL + 60}' fill='#f4f6f8'/>",
        _text(12, 34, title, INK, 22, weight=600),
    ]
    for y, words in heads.items():
        parts.append(_text(12, 60 + y * TALL + 24, words, FAINT, 16, weight=600))
    for tile in tiles:
        x, y = tile.x * CELL, 60 + tile.y * TALL
        w, h = tile.width * CELL, tile.height * TALL
        parts.append(
            f"<rect x='{x + gap / 2}' y='{y + gap / 2}' width='{w - gap}' height='{h - gap}' rx='6' fill='#fff' "
            f"stroke='{GRID}'/>"
            f"<svg x='{x + 14}' y='{y + 12}' width='{w - 28}' height='{h - 24}'>{tile.picture}</svg>"
        )
    return _picture(title, parts, Size(1200, bottom * TALL + 60))


def _picture(title: str, parts: Sequence[str], size: Size) -> str:
    body = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {size.width} {size.height}' role='img' "
        f"aria-label='{escape(title)}' preserveAspectRatio='xMinYMin meet' {FONT}>\n{body}\n</svg>"
    )


class _Frame:
    """Title, legend and axes; what is drawn between them asks it for its place."""

    def __init__(self, title: str, series: Sequence[Series], highest: float, unit: str, size: Size) -> None:
        self.title, self.unit, self.size = title, unit, size
        self.across = size.width - LEFT - RIGHT
        self.legend = [(_cut(each.name, 22), each.colour) for each in series[:6]]
        # A legend that has no room beside the title stands below it.
        beside = sum(7.2 * len(name) + 24 for name, _ in self.legend) < size.width - 8.6 * len(title)
        self.legend_y, self.top = (17, TOP) if beside else (36, TOP + 18)
        self.highest, self.ticks = _scale(highest, unit)

    def y(self, value: float) -> float:
        return self.size.height - BOTTOM - value / self.highest * (self.size.height - self.top - BOTTOM)

    def axes(self, labels: Sequence[str], first: float, step: float) -> list[str]:
        parts = [_title(self.title)]
        for tick in self.ticks:
            y, right = self.y(tick), self.size.width - RIGHT
            parts.append(f"<line x1='{LEFT}' x2='{right}' y1='{y:.1f}' y2='{y:.1f}' stroke='{GRID}'/>")
            parts.append(_text(LEFT - 8, y + 4, short(tick, self.unit), FAINT, 12, anchor="end"))
        every = max(1, -(-len(labels) // 9))
        for at in range(0, len(labels), every):
            x = LEFT + first + at * step
            parts.append(_text(x, self.size.height - 8, labels[at], FAINT, 12, anchor="middle"))
        x = float(self.size.width - RIGHT)
        for name, colour in reversed(self.legend):
            x -= 7.2 * len(name) + 24
            if x < 0:
                break
            parts.append(f"<rect x='{x:.1f}' y='{self.legend_y - 10}' width='11' height='11' rx='2' fill='{colour}'/>")
            parts.append(_text(x + 16, self.legend_y, name, FAINT, 12))
        return parts


def _scale(highest: float, unit: str) -> tuple[float, list[float]]:
    """The top of the axis and its ticks: a step of 1, 2 or 5 of something, and at most five of them."""
    if highest <= 0 or not isfinite(highest):
        return 1, [0, 1]
    if unit == "bytes" and highest >= 1024:
        base = 1024 ** floor(log(highest, 1024))
        top, ticks = _scale(highest / base, "")
        return top * base, [tick * base for tick in ticks]
    raw = highest / 4
    magnitude = 10 ** floor(log10(raw))
    step = next(each * magnitude for each in (1, 2, 5, 10) if each * magnitude >= raw)
    count = int(-(-highest // step))
    return step * count, [step * each for each in range(count + 1)]


def _title(text: str) -> str:
    return _text(0, 17, text, INK, 15, weight=600)


def _text(
    x: float, y: float, text: str, colour: str, size: int, *, anchor: str = "start", weight: int | None = None
) -> str:
    bold = f" font-weight='{weight}'" if weight else ""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' fill='{colour}' font-size='{size}' text-anchor='{anchor}'{bold}>"
        f"{escape(text)}</text>"
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
