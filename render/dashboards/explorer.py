"""All that was written down, to search in."""

from render.dashboards.parts import Board, Choice, Query, Row, Source, graph, lines

CHOSEN = '{kind=~"$kind"} |~ `(?i)$search`'

BOARD = Board(
    "logs",
    "Fortress: logs",
    "Requests, commands, the tunnel's events and sign-ins. No prompt, answer, key or query is in them.",
    (
        Row(
            "Lines",
            (
                graph(
                    "How many",
                    Query(f"sum by (kind) (count_over_time({CHOSEN} [$__interval]))", "{{kind}}", Source.LOKI),
                    width=24,
                    stacked=True,
                ),
                lines("Lines", CHOSEN),
            ),
        ),
    ),
    choices=(
        Choice("kind", "Kind", values=("audit", "command", "tunnel", "login")),
        Choice("search", "Text (a regular expression)"),
    ),
)
