"""Pictures of the mazes' benchmark: of the promised size, with what the report says where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from diffplan.benchmarks.maze_gallery import PAIR_COLOURS, SCALE, WIDTH, gallery_figure
from diffplan.benchmarks.maze_plots import save_plots, sweeps_figure
from diffplan.benchmarks.maze_report import BOUND, CONTROLLER
from diffplan.envs.colours import FREE, GOAL, START, VIA, WALL
from diffplan.envs.tasks import find_task

MAZES = ("multi2d-umaze", "multi2d-medium", "multi2d-large")


def make_pair(task: str, start: int, goal: int) -> dict:
    """Straight from cell to cell."""
    maze = find_task(task).maze
    way = [maze.center(cell).tolist() for cell in maze.route(maze.free_cells[start], maze.free_cells[goal])]
    return {"start": way[0], "goal": way[-1], "plan": way, "course": way, "driven": way, "fastest": way}


def make_points(task: str, values: list[float], score: float = 150.0) -> list[dict]:
    return [
        {"task": task, "value": v, "score_strict": score + i, "score_strict_ci95": 2.0} for i, v in enumerate(values)
    ]


@pytest.fixture(scope="module")
def report() -> dict:
    """A gallery of three mazes, and sweeps of two tasks, out of order."""
    references = [{"method": CONTROLLER, "score_strict": 155.0}, {"method": BOUND, "score_strict": 167.0}]
    replans = make_points("multi2d-large", [10**6, 5, 20], 220.0) + make_points("multi2d-umaze", [5, 20, 300])
    sweeps = {"replan_every": replans, "candidates": make_points("multi2d-umaze", [1, 4, 16])}
    return {
        "tasks": {"multi2d-umaze": {"rows": references}},
        "sweeps": sweeps,
        "gallery": {task: [make_pair(task, 0, -1), make_pair(task, 2, -3)] for task in MAZES},
    }


@pytest.fixture(scope="module")
def pictures(report, tmp_path_factory) -> dict[str, np.ndarray]:
    paths = save_plots(report, tmp_path_factory.mktemp("plots"))
    assert [path.name for path in paths] == ["maze-sweeps.png", "maze-gallery.png"]
    assert all(path.stat().st_size < 200_000 for path in paths)
    return {path.stem: np.asarray(Image.open(path).convert("RGB")) for path in paths}


def of_colour(picture: np.ndarray, colour: str, tolerance: int = 4) -> np.ndarray:
    """(h, w) true where a picture has a colour."""
    return (np.abs(picture.astype(int) - 255 * np.array(to_rgb(colour))) <= tolerance).all(axis=-1)


@pytest.mark.parametrize("name", ["maze-sweeps", "maze-gallery"])
def test_pictures_are_as_wide_as_promised_and_not_clipped(pictures, name):
    picture = pictures[name]
    assert picture.shape[1] == SCALE * WIDTH and picture.std() > 10
    for edge in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]):
        assert (edge == 255).all()


@pytest.mark.parametrize("index", range(len(MAZES)))
def test_walls_stand_where_the_map_has_walls(report, pictures, index):
    figure, picture = gallery_figure(report), pictures["maze-gallery"]
    assert figure is not None
    axes, maze = figure.axes[index], find_task(MAZES[index]).maze
    assert axes.get_title(loc="left") == MAZES[index]
    box = axes.bbox
    for cell in np.ndindex(maze.walls.shape):
        quarter = maze.center(cell) + 0.4 * maze.cell_metres * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
        for x, y in axes.transData.transform(quarter):
            if not (box.x0 + 1 < x < box.x1 - 1 and box.y0 + 1 < y < box.y1 - 1):
                continue  # of the outer walls a rim is shown
            seen = picture[len(picture) - 1 - int(y), int(x)].astype(int)
            dark, light = (np.abs(seen - 255 * np.array(to_rgb(c))).sum() for c in (WALL, FREE))
            assert (dark < light) == maze.walls[cell], (MAZES[index], cell)


def test_starts_and_goals_stand_where_they_are(report, pictures):
    figure, picture = gallery_figure(report), pictures["maze-gallery"]
    assert figure is not None
    for axes, task in zip(figure.axes, MAZES, strict=True):
        for pair, colour in zip(report["gallery"][task], PAIR_COLOURS, strict=False):
            for place in ("start", "goal"):
                x, y = axes.transData.transform(pair[place])
                around = picture[len(picture) - 1 - int(y) - 4 :][:9, int(x) - 4 : int(x) + 5]
                assert of_colour(around, colour, 30).any(), (task, place)


def test_panels_neither_overlap_nor_leave_the_page(report):
    six = {
        task.replace("multi", family): pairs
        for family in ("maze", "multi")
        for task, pairs in report["gallery"].items()
    }
    for gallery in (
        six,
        {"multi2d-large": report["gallery"]["multi2d-large"]},
        {"multi2d-giant": [make_pair("multi2d-giant", 0, -1)]},
    ):
        figure = gallery_figure({"gallery": gallery})
        assert figure is not None and len(figure.axes) == len(gallery)
        boxes = [axes.get_position() for axes in figure.axes]
        for i, box in enumerate(boxes):
            assert 0 < box.x0 < box.x1 < 1 and 0 < box.y0 < box.y1 < 1
            assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        for axes in figure.axes:  # metres are as wide as they are high
            width, height = axes.transData.transform((1, 1)) - axes.transData.transform((0, 0))
            assert width == pytest.approx(height, rel=1e-3)


def test_pairs_whose_lines_would_hide_each_other_are_left_out():
    same, other = make_pair("multi2d-large", 0, -1), make_pair("multi2d-large", 9, -12)
    figure = gallery_figure({"gallery": {"multi2d-large": [same, dict(same), dict(same), other]}})
    assert figure is not None
    starts = [tuple(line.get_xydata()[0]) for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert starts == [tuple(same["start"]), tuple(other["start"])]


def test_a_course_is_drawn_where_nothing_was_driven():
    pair = make_pair("multi2d-umaze", 0, -1)
    for missing, words in (((), "driven"), (("driven",), "course"), (("driven", "course"), "plan")):
        kept = {key: way for key, way in pair.items() if key not in missing}
        figure = gallery_figure({"gallery": {"multi2d-umaze": [kept]}})
        assert figure is not None
        assert figure.legends[0].get_texts()[0].get_text() == words


def test_sweeps_are_drawn_at_their_values_with_their_intervals(report):
    figure = sweeps_figure(report)
    assert figure is not None
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["multi2d-umaze", "multi2d-umaze", "multi2d-large"]
    for axes, values, scores in zip(
        figure.axes, ([5, 20, 300], [1, 4, 16], [5, 20, 800]), (150, 150, 221), strict=True
    ):
        container = axes.containers[0]
        assert container.lines[0].get_xdata().tolist() == values
        assert container.lines[0].get_ydata().tolist() == [scores, scores + 1, 220 if values[-1] == 800 else scores + 2]
        for segment, score in zip(container.lines[2][0].get_segments(), container.lines[0].get_ydata(), strict=True):
            assert segment[:, 1].tolist() == [score - 2, score + 2]
        assert axes.get_xlabel() and figure.axes[0].get_ylabel() == "strict score"
    lines = {
        line.get_label(): line.get_ydata()[0]
        for line in figure.axes[1].lines
        if line.get_label() in (BOUND, CONTROLLER)
    }
    assert lines == {BOUND: 167.0, CONTROLLER: 155.0}
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_replanning_once_an_episode_or_less_is_never(report):
    figure = sweeps_figure(report)
    assert figure is not None
    figure.canvas.draw()
    for index, words in ((0, ["5", "20", "never"]), (1, ["1", "4", "16"]), (2, ["5", "20", "never"])):
        assert [label.get_text() for label in figure.axes[index].get_xticklabels()] == words


def test_sweeps_have_their_colours(pictures):
    for colour in (START, GOAL, VIA):
        assert of_colour(pictures["maze-sweeps"], colour).sum() > 300


@pytest.mark.filterwarnings("error")
def test_a_single_point_without_an_interval_and_zero_are_drawn(tmp_path):
    for values in ([7.0], [0.0, 3.0]):
        points = [
            {"task": "maze2d-umaze", "value": v, "score_strict": 100.0, "score_strict_ci95": None} for v in values
        ]
        assert len(save_plots({"sweeps": {"candidates": points}}, tmp_path)) == 1


@pytest.mark.parametrize(
    "report", [{}, {"sweeps": {"candidates": []}, "gallery": {"multi2d-umaze": []}}, {"sweeps": None}]
)
def test_nothing_is_written_of_what_was_not_measured(report, tmp_path):
    assert save_plots(report, tmp_path) == [] and not list(tmp_path.iterdir())
