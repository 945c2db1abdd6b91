"""Grafana's dashboards: which there are, one file each. Their questions are those of the metrics and labels we make."""

from pathlib import Path

from render.dashboards import capacity, explorer, overview, security, users
from render.dashboards.parts import Board, Query, Source, asked, asked_itself, encode

__all__ = ["BOARDS", "Query", "Source", "files", "questions", "write"]

BOARDS: tuple[Board, ...] = (overview.BOARD, users.BOARD, security.BOARD, capacity.BOARD, explorer.BOARD)


def files() -> dict[str, str]:
    """File name -> JSON, for a folder that Grafana provisions from."""
    return {f"{board.name}.json": encode(board) for board in BOARDS}


def write(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    written = [(folder / name, text) for name, text in files().items()]
    for path, text in written:
        path.write_text(text)
    return [path for path, _ in written]


def questions(window: str = "5m") -> list[tuple[str, Query]]:
    """Every panel's question as Prometheus or Loki itself is asked: everybody chosen, over `window`.

    Returns: (dashboard and panel, query).
    """
    return [
        (
            f"{board.name}: {title}",
            Query(asked_itself(query.text, window, window), query.legend, query.source, query.instant),
        )
        for board in BOARDS
        for title, query in asked(encode(board))
    ]
