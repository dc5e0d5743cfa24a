"""A maze of one's own: the map in a text file, and the task that it makes.

    #######
    #S...G#
    #.###.#
    #.....#
    #######

`#` is a wall, `.` free, `G` the goal (without one every episode draws a fresh goal), `S` a start (any number; without
one episodes begin in any free cell).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NoReturn

from ..maze import Cell, MazeMap
from .mazes import FAR, MORE, MazeTask, Pace, maze_task

MOST_BYTES = 64 * 1024
MOST_CELLS = 64  # per side: each wall is a body that MuJoCo simulates
LONGEST_NAME = 40
LETTERS = {"#": "wall", ".": "free", "G": "goal", "S": "start"}
COLLECT_STEPS = 1_000_000


def read_map(path: str | Path) -> MazeMap:
    """The maze in a text file; `G` and `S` stay in its rows.

    Raises:
        ValueError: a file that cannot be read, or a map that cannot be; with line and column, and what to do.
    """
    file, what = Path(path), f"map {str(path)!r}"
    try:
        if file.is_dir():
            raise ValueError(f"{what} is a folder; name the text file in it")
        if not file.is_file():
            raise ValueError(f"{what} does not exist, or is no file; name a text file of {_known()}")
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{what} cannot be read ({error.strerror or error}); name a file that can") from error
    if len(content) > MOST_BYTES:
        raise ValueError(f"{what} is larger than {MOST_BYTES // 1024} KiB; a map has at most {_most()}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} is no text (byte {error.start + 1}); write one of {_known()}") from error
    return parse_map(text, what)


def parse_map(text: str, what: str = "map") -> MazeMap:
    """The maze that a text draws; `what` begins the messages.

    Raises:
        ValueError: as for `read_map`.
    """
    rows = text.replace("\r\n", "\n").split("\n")
    while rows and not rows[-1].strip():
        rows.pop()
    if not rows:
        raise ValueError(f"{what} is empty; draw one of {_known()}")
    if len(rows) > MOST_CELLS or max(map(len, rows)) > MOST_CELLS:
        raise ValueError(
            f"{what} has {len(rows)} rows of up to {max(map(len, rows))} cells; a map has at most {_most()}"
        )
    _check_letters(rows, what)
    _check_shape(rows, what)
    _check_cells(rows, what)
    maze = MazeMap(tuple(rows))
    _check_routes(maze, what)
    return maze


def _known() -> str:
    return ", ".join(f"{letter} ({meaning})" for letter, meaning in LETTERS.items())


def _most() -> str:
    return f"{MOST_CELLS} rows of {MOST_CELLS} cells"


def _refuse(what: str, cell: Cell, words: str) -> NoReturn:
    raise ValueError(f"{what}, {_place(cell)}: {words}")


def _place(cell: Cell) -> str:
    return f"line {cell[0] + 1}, column {cell[1] + 1}"


def _find(rows: Collection[str], letters: str) -> Iterator[Cell]:
    return ((i, j) for i, row in enumerate(rows) for j, letter in enumerate(row) if letter in letters)


def _check_letters(rows: list[str], what: str) -> None:
    for i, row in enumerate(rows):
        if not row.strip():
            _refuse(what, (i, 0), "the line is empty; begin with the top wall and leave no gap")
        for j, letter in enumerate(row):
            if letter not in LETTERS:
                _refuse(what, (i, j), f"{letter!r} means nothing; use {_known()}")


def _check_shape(rows: list[str], what: str) -> None:
    width = len(rows[0])
    for i, row in enumerate(rows):
        if len(row) != width:
            end = (i, min(len(row), width))
            _refuse(what, end, f"the row has {len(row)} cells and the first has {width}; make them equally long")
    for i, j in _find(rows, ".GS"):
        if i in (0, len(rows) - 1) or j in (0, width - 1):
            _refuse(what, (i, j), f"{rows[i][j]!r} leaves the border open; close it with #")


def _check_cells(rows: list[str], what: str) -> None:
    free, goals = list(_find(rows, ".GS")), list(_find(rows, "G"))
    if not free:
        raise ValueError(f"{what} has no free cell; draw some with .")
    if len(free) < 2:
        _refuse(what, free[0], "this is the only free cell; a maze needs two or more")
    if len(goals) > 1:
        _refuse(
            what, goals[1], f"a second goal, after that in {_place(goals[0])}; leave one G, or none for fresh goals"
        )


def _check_routes(maze: MazeMap, what: str) -> None:
    """Refuse cells that cannot be reached: the goal first, then any other."""
    start = next(iter([*_find(maze.rows, "S"), *maze.free_cells]))
    reached = maze.search(start)
    lost = [c for c in (*_find(maze.rows, "G"), *_find(maze.rows, "S"), *maze.free_cells) if c not in reached]
    if lost:
        letter = maze.rows[lost[0][0]][lost[0][1]]
        words = f"this {LETTERS[letter]} cell cannot be reached from {_place(start)}; open a way, or make it #"
        _refuse(what, lost[0], words)


# ---------------------------------------------------------------------- the task


def own_task(stem: str, maze: MazeMap) -> MazeTask:
    """The task of a map: `maze2d-STEM`, with data of its own that other walls do not share.

    Args:
        stem: of the map's file.
        maze: as `read_map` reads it.

    Raises:
        ValueError: a stem that is no name, or a known task's.
    """
    from . import all_tasks

    short = re.sub(r"[^a-z0-9_]+", "-", stem.lower()).strip("-_")
    name = f"maze2d-{short}"
    if not short or len(short) > LONGEST_NAME:
        raise ValueError(
            f"map name {stem!r} makes no task name; rename the file to letters and digits, at most {LONGEST_NAME}"
        )
    if name in all_tasks():
        raise ValueError(f"map name {stem!r} would make the task {name}, which is another one; rename the file")
    digest = hashlib.sha256("\n".join(maze.walls_alone).encode()).hexdigest()[:8]
    return maze_task(
        name,
        f"diffplan/maze2d/{short}-{digest}-v0",
        maze,
        pace_of(maze),
        goal_cell=next(_find(maze.rows, "G"), None),
        start_cells=tuple(_find(maze.rows, "S")),
        collect_steps=COLLECT_STEPS,
        own=True,
    )


def pace_of(maze: MazeMap) -> Pace:
    """What suits a map, from how long the longest of its shortest routes takes.

    The data's agent takes up to about 40 steps to get going, 21 from cell to cell and 14 more for a turn. That is 194
    for umaze, 369 for medium and 537 for large, whose settings the rest follows. A plan spans a little less, so that
    there are episodes as long as it, and 470 steps at most: ways that take longer are made of several plans.
    """
    route = maze.longest_route
    turns = sum(a[0] != c[0] and a[1] != c[1] for a, c in zip(route, route[2:], strict=False))
    steps = 40 + 21 * (len(route) - 1) + 14 * turns
    stride = 5 if steps <= 220 else 10
    return Pace(
        stride=stride,
        horizon=min(int(0.9 * steps / stride) // 4 * 4, 48),
        episode_steps=max(round(1.5 * steps / 100), 2) * 100,
        minutes=float(min(max(round(steps / 20), 6), 30)),
        tempo=1.5 if steps <= 220 else 1.3 if steps <= 400 else 1.2,
        sampling={} if steps <= 220 else FAR if steps > 600 else MORE,
    )
