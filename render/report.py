"""The monthly report as one page: HTML with its pictures inside, and the same words as Markdown. No script in it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, StrictUndefined

from fortress.review import VERDICTS, Review, to_do, when
from render import pictures
from render.pictures import BLUE, GREY, ORANGE, PALE, RED, Series, short

COLOURS = {"allowed": BLUE, "refused": ORANGE, "failed": RED, "cut": GREY}
MOST_ROWS = 25


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    empty: str
    numbers: frozenset[int] = frozenset()
    """Columns that are set to the right."""


@dataclass(frozen=True)
class Section:
    title: str
    pictures: tuple[str, ...] = ()
    tables: tuple[tuple[str, Table], ...] = ()
    """(words above it, table)."""


def html(review: Review) -> str:
    return _PAGE.render(
        review=review,
        title=_title(review),
        subtitle=_subtitle(review),
        numbers=_numbers(review),
        to_do=[_parts(sentence) for sentence in to_do(review)],
        sections=_sections(review),
        most=MOST_ROWS,
    )


def markdown(review: Review) -> str:
    parts = [f"# {_title(review)}", _subtitle(review)]
    parts.append("\n".join(f"- {name}: **{value}**" for name, value in _numbers(review)))
    parts += ["## What to do", "\n".join(f"- {_sentence(each)}" for each in to_do(review)) or "Nothing."]
    for section in _sections(review):
        parts.append(f"## {section.title}")
        for words, table in section.tables:
            parts += [f"### {words}"] if words else []
            parts.append(_table(table))
    return "\n\n".join(parts) + "\n"


def _title(review: Review) -> str:
    return f"{review.stack}: {review.begin:%B %Y}"


def _subtitle(review: Review) -> str:
    text = f"Made {when(review.made, review.zone)}, times in {review.zone}."
    if review.made < review.end:
        text += " The month is not over."
    if review.first_line is None:
        return f"{text} No request of this month is in the trail."
    if review.first_line > review.begin and (review.first_line - review.begin).days >= 1:
        text += f" The trail begins {when(review.first_line, review.zone)}."
    return text


def _numbers(review: Review) -> list[tuple[str, str]]:
    share = review.refused / review.requests if review.requests else 0
    half, most = review.first_token(0.5), review.first_token(0.95)
    active = sum(1 for user in review.users.values() if user.requests)
    first = "none" if half is None or most is None else f"{half:.2f} / {most:.2f} s"
    return [
        ("Requests", short(review.requests)),
        ("Tokens", short(review.tokens)),
        ("Active users", f"{active} of {len(review.users)}"),
        ("Refused", f"{short(review.refused)} ({share:.1%})" if review.refused else "0"),
        ("First token, half / most", first),
        ("Without valid proof", short(sum(review.failures.values()))),
    ]


def _sections(review: Review) -> list[Section]:
    return [_use(review), _users(review), _refusals(review), _suspicious(review), _trust(review)]


def _use(review: Review) -> Section:
    verdicts = [Series(name, review.by_day[name], COLOURS[name]) for name in VERDICTS]
    read, written = review.tokens_by_day
    tokens = [Series("read", read, PALE), Series("written", written, BLUE)]
    agents = [(name, str(count)) for name, count in review.agents.most_common()]
    return Section(
        "Use",
        (
            pictures.columns("Requests a day", review.days, verdicts),
            pictures.columns("Tokens a day", review.days, tokens),
        ),
        (("Programs they came with", Table(("program", "requests"), agents, "None.", frozenset({1}))),),
    )


def _users(review: Review) -> Section:
    ordered = sorted(review.users.items(), key=lambda pair: (-pair[1].tokens, -pair[1].requests, pair[0]))
    rows = [
        (
            name,
            user.role,
            short(user.requests),
            short(user.refused),
            short(user.tokens_in),
            short(user.tokens_out),
            f"{user.tokens / user.budget:.0%}" if user.budget else "none",
            ", ".join(model for model, _ in user.models.most_common(3)),
            ", ".join(sorted(user.devices)),
            when(user.last, review.zone) or "not seen",
        )
        for name, user in ordered
    ]
    head = ("user", "role", "requests", "refused", "read", "written", "of budget", "models", "devices", "last")
    used = [(name, float(user.tokens)) for name, user in ordered if user.tokens]
    table = Table(head, rows, "Nobody.", frozenset({2, 3, 4, 5, 6}))
    return Section("Users", (pictures.bars("Tokens by user", used),), (("", table),))


def _refusals(review: Review) -> Section:
    reasons = [(name, float(count)) for name, count in review.reasons.most_common()]
    rows = [(name, str(int(count))) for name, count in reasons]
    table = Table(("reason", "requests"), rows, "Nothing was refused.", frozenset({1}))
    return Section("Refused", (pictures.bars("By reason", reasons, colour=ORANGE),), (("", table),))


def _suspicious(review: Review) -> Section:
    zone = review.zone
    right = frozenset({1})
    failures = [(address, str(times)) for address, times in review.failures.most_common()]
    forbidden = [(*who, str(times)) for who, times in review.forbidden.most_common()]
    new = [(when(at, zone), who, address) for at, who, address in review.new_peers]
    roamed = [(who, str(times)) for who, times in review.roamed.most_common()]
    signed = [(user, result, str(times)) for (user, result), times in sorted(review.signed_in.items())]
    commands = [(when(at, zone), *words) for at, *words in review.commands]
    lost = [(when(at, zone), str(lines)) for at, lines in review.lost]

    def none(part: str, word: str = "None.") -> str:
        return f"Not known: the trail of {part} could not be read." if part in review.unread else word

    return Section(
        "Worth a look",
        (),
        (
            (
                "Without a valid proof",
                Table(("tunnel address", "requests"), failures, none("gateway", "Nobody."), right),
            ),
            (
                "Known, but not allowed there",
                Table(("user", "route", "reason", "times"), forbidden, none("gateway", "Nobody."), frozenset({3})),
            ),
            ("New devices", Table(("when", "device", "address"), new, none("vpn-node"))),
            ("Moved while connected", Table(("device", "times"), roamed, none("vpn-node", "Nobody."), right)),
            ("Sign-ins in the browser", Table(("user", "result", "times"), signed, none("login"), frozenset({2}))),
            ("Commands", Table(("when", "command", "about", "by", "result"), commands, none("gateway"))),
            ("Requests without a line in the trail", Table(("until", "requests"), lost, none("gateway"), right)),
        ),
    )


def _trust(review: Review) -> Section:
    keys = [
        (
            key.owner,
            key.kind,
            key.epoch,
            key.overlap or "",
            "the device's own" if key.kind.startswith("own") else "not known" if key.days is None else f"{key.days} d",
        )
        for key in review.keys
    ]
    certificates = [
        (each.name, f"{each.until:%Y-%m-%d}", f"{(each.until - review.made).days}") for each in review.certificates
    ]
    below = [(each,) for each in review.below_floors]
    unknown = f"Not known: {review.unknown}" if review.unknown else "None."
    head = ("key of", "kind", "epoch", "also valid", "at most so old")
    return Section(
        "Keys, certificates, versions",
        (),
        (
            ("Keys, by the age of their seed", Table(head, keys, unknown, frozenset({4}))),
            ("Certificates", Table(("name", "until", "days left"), certificates, unknown, frozenset({2}))),
            ("Below a security floor", Table(("program",), below, "None.")),
        ),
    )


def _table(table: Table) -> str:
    if not table.rows:
        return table.empty
    lines = [f"| {' | '.join(table.head)} |"]
    lines.append("|" + "|".join("---:" if at in table.numbers else "---" for at in range(len(table.head))) + "|")
    lines += [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in table.rows[:MOST_ROWS]]
    if len(table.rows) > MOST_ROWS:
        lines.append(f"\nand {len(table.rows) - MOST_ROWS} more")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text that stays text in Markdown."""
    return re.sub(r"([\\|<>\[\]*_`])", r"\\\1", text)


def _sentence(text: str) -> str:
    return "".join(f"`{part}`" if code else _plain(part) for code, part in _parts(text))


def _parts(sentence: str) -> list[tuple[bool, str]]:
    """(is it code?, text): what stands in backticks is code."""
    return [(at % 2 == 1, part) for at, part in enumerate(sentence.split("`"))]


def file_name(stack: str, month: str) -> str:
    return f"report-{stack}-{month}"


_ENVIRONMENT = Environment(undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True)
_PAGE = _ENVIRONMENT.from_string("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
:root { --ink: #1c2733; --faint: #5d6b79; --line: #e3e8ed; --soft: #f6f8fa; --accent: #2b6ca3; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1000px; padding: 2.2rem 1.4rem 3rem; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; -webkit-text-size-adjust: 100%; }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -0.01em; }
h2 { margin: 2.4rem 0 0.8rem; padding-bottom: 0.35rem; border-bottom: 2px solid var(--line); font-size: 1.25rem; }
h3 { margin: 1.3rem 0 0.4rem; font-size: 0.95rem; color: var(--faint); font-weight: 600; }
p.sub { margin: 0.3rem 0 1.5rem; color: var(--faint); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(145px, 1fr)); gap: 0.7rem; margin: 0; }
dl div { padding: 0.7rem 0.9rem; background: var(--soft); border-radius: 8px; }
dt { font-size: 0.8rem; color: var(--faint); }
dd { margin: 0.15rem 0 0; font-size: 1.2rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.do { margin-top: 1.5rem; padding: 0.9rem 1.2rem; border-left: 4px solid var(--accent); background: var(--soft);
  border-radius: 0 8px 8px 0; }
.do h2 { margin: 0 0 0.3rem; padding: 0; border: 0; font-size: 1.05rem; }
.do ul { margin: 0; padding-left: 1.1rem; }
.do p { margin: 0; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); gap: 1.4rem; }
svg { width: 100%; height: auto; display: block; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 0.87rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--faint); white-space: nowrap; }
th, td { padding: 0.34rem 0.9rem 0.34rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th.n, td.n { text-align: right; }
td { overflow-wrap: break-word; }
td.n { white-space: nowrap; }
.none, .more { color: var(--faint); margin: 0.2rem 0; font-size: 0.9rem; }
code { font: 0.92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: #e9eef3; padding: 0 0.25em;
  border-radius: 3px; }
@media (max-width: 560px) {
  body { padding: 1.2rem 0.9rem 2rem; }
  h1 { font-size: 1.5rem; }
  dl { grid-template-columns: 1fr 1fr; }
  dd { font-size: 1.1rem; }
  table { font-size: 0.8rem; }
  th, td { padding-right: 0.55rem; }
}
@media print {
  @page { size: A4; margin: 14mm 13mm; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  dl { grid-template-columns: repeat(3, 1fr); }
  .pictures { grid-template-columns: 1fr 1fr; }
  .wide { overflow: visible; }
  h2, h3 { break-after: avoid; }
  tr, svg, dl div, .do { break-inside: avoid; }
  dl div, .do, code { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  svg { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="sub">{{ subtitle }}</p>
<dl>
{% for name, value in numbers %}
<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>
<div class="do">
<h2>What to do</h2>
{% if to_do %}
<ul>
{% for parts in to_do %}
<li>{% for code, text in parts %}{% if code %}<code>{{ text }}</code>{% else %}{{ text }}{% endif %}{% endfor %}</li>
{% endfor %}
</ul>
{% else %}
<p>Nothing.</p>
{% endif %}
</div>
{% for section in sections %}
<section>
<h2>{{ section.title }}</h2>
{% if section.pictures %}
<div class="pictures">
{% for picture in section.pictures %}
<div>{{ picture | safe }}</div>
{% endfor %}
</div>
{% endif %}
{% for words, table in section.tables %}
{% if words %}
<h3>{{ words }}</h3>
{% endif %}
{% if table.rows %}
<div class="wide"><table>
<tr>{% for cell in table.head %}<th{% if loop.index0 in table.numbers %} class="n"{% endif %}>{{ cell }}</th>\
{% endfor %}</tr>
{% for row in table.rows[:most] %}
<tr>{% for cell in row %}<td{% if loop.index0 in table.numbers %} class="n"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% if table.rows | length > most %}
<p class="more">and {{ table.rows | length - most }} more</p>
{% endif %}
{% else %}
<p class="none">{{ table.empty }}</p>
{% endif %}
{% endfor %}
</section>
{% endfor %}
</body>
</html>
""")
