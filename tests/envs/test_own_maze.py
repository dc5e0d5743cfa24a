"""Maps of one's own: what is read, what is refused and where, and the task that a map makes."""

import os
from dataclasses import replace

import minari
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffplan.benchmarks.baselines import WaypointPolicy, run_policy
from diffplan.benchmarks.evaluate import summarize
from diffplan.benchmarks.report import header_of, table_rows
from diffplan.envs.collect import PATIENCE, record_maze
from diffplan.envs.datasets import collect, describe, load_episodes
from diffplan.envs.maze import MAZES, MazeMap
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import all_tasks, find_task, own_task, read_map, task_of, task_on
from diffplan.envs.tasks.own import MOST_BYTES, pace_of, parse_map

LOOP = ("#######", "#S...G#", "#.###.#", "#S....#", "#######")
LINE = "####\n#..#\n####\n"


def write(folder, text, name="mine.txt"):
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def read_or_refusal(read, source):
    """A maze and no words, or no maze and the words; any other exception than ValueError is the test's failure."""
    try:
        return read(source), ""
    except ValueError as refused:
        return None, str(refused)


class TestReading:
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("tail", ["", "\n", "\n\n  \n", "\n\t\n\n"])
    @pytest.mark.parametrize("head", ["", "\ufeff"])
    def test_line_ends_and_blank_lines_at_the_end_do_not_matter(self, end, tail, head, tmp_path):
        maze = read_map(write(tmp_path, head + end.join(LOOP) + tail.replace("\n", end)))
        assert maze == MazeMap(LOOP)
        assert maze.gymnasium_map[2] == [1, 0, 1, 1, 1, 0, 1]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is empty; draw one"),
            ("\n \n\r\n", "is empty; draw one"),
            ("####\n#..#\n#.##\n#.##", r"line 4, column 2: '\.' leaves the border open; close it with #"),
            ("####\n#...\n####", r"line 2, column 4: '\.' leaves the border open"),
            ("####\nS..#\n####", r"line 2, column 1: 'S' leaves the border open"),
            ("##G#\n#..#\n####", r"line 1, column 3: 'G' leaves the border open"),
            ("####\n#..#\n###", "line 3, column 4: the row has 3 cells and the first has 4; make them equally long"),
            ("####\n#..##\n####", "line 2, column 5: the row has 5 cells and the first has 4"),
            ("####\n#.x#\n####", r"line 2, column 3: 'x' means nothing; use # \(wall\), \. \(free\), G"),
            ("####\n#..# \n####", "line 2, column 5: ' ' means nothing"),
            ("####\n#.\t#\n####", r"line 2, column 3: '\\t' means nothing"),
            ("####\r#..#\r####", r"line 1, column 5: '\\r' means nothing"),
            ("####\n#..#\x00\n####", r"line 2, column 5: '\\x00' means nothing"),
            ("####\n\n#..#\n####", "line 2, column 1: the line is empty"),
            ("\n####\n#..#\n####", "line 1, column 1: the line is empty; begin with the top wall"),
            ("####\n####\n####", "has no free cell; draw some"),
            ("#", "has no free cell"),
            ("####\n##.#\n####", "line 2, column 3: this is the only free cell; a maze needs two or more"),
            ("####\n#GG#\n####", "line 2, column 3: a second goal, after that in line 2, column 2; leave one G"),
            ("#####\n#.#G#\n#####", "line 2, column 4: this goal cell cannot be reached from line 2, column 2"),
            ("#####\n#G#S#\n#####", "line 2, column 2: this goal cell cannot be reached from line 2, column 4"),
            ("######\n#S.#S#\n######", "line 2, column 5: this start cell cannot be reached from line 2, column 2"),
            ("#####\n#G..#\n###.#\n#.###\n#####", "line 4, column 2: this free cell cannot be reached from line 2"),
            ("#" * 65, "1 rows of up to 65 cells; a map has at most 64 rows of 64 cells"),
            ("#\n" * 65, "65 rows"),
        ],
    )
    def test_what_cannot_be_is_refused_with_its_place(self, text, message, tmp_path):
        file = write(tmp_path, text)
        with pytest.raises(ValueError, match=f"mine.txt'.*{message}") as refused:
            read_map(file)
        assert "\n" not in str(refused.value)

    def test_files_that_are_no_maps_are_refused_by_name(self, tmp_path):
        large = write(tmp_path, b"#" * (MOST_BYTES + 1), "large.txt")
        binary = write(tmp_path, b"####\n#.\xff#", "binary.txt")
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        cases = {
            tmp_path / "none.txt": "does not exist",
            tmp_path: "is a folder",
            pipe: "is no file",
            large: "larger than 64 KiB",
            binary: r"is no text \(byte 8\)",
            tmp_path / ("x" * 300): "cannot be read|does not exist",
        }
        for file, message in cases.items():
            with pytest.raises(ValueError, match=message) as refused:
                read_map(file)
            assert file.name in str(refused.value)

    @pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
    def test_an_unreadable_file(self, tmp_path):
        file = write(tmp_path, LINE)
        file.chmod(0)
        with pytest.raises(ValueError, match=r"mine.txt' cannot be read \(Permission denied\)"):
            read_map(file)

    @given(st.text() | st.text("#.GS\n\r x", max_size=60))
    @settings(max_examples=300, deadline=None)
    def test_any_text_is_a_maze_or_refused_in_one_line(self, text):
        maze, words = read_or_refusal(parse_map, text)
        assert "\n" not in words
        assert words or len(maze.search(maze.free_cells[0])) == len(maze.free_cells) >= 2

    @given(st.binary(max_size=100))
    @settings(max_examples=100, deadline=None)
    def test_any_file_is_a_maze_or_refused(self, tmp_path_factory, content):
        file = write(tmp_path_factory.getbasetemp(), content, "any.txt")
        maze, words = read_or_refusal(read_map, file)
        assert "any.txt" in words or len(maze.free_cells) >= 2

    @given(st.lists(st.text("#...", min_size=4, max_size=4), min_size=1, max_size=5))
    @settings(max_examples=300, deadline=None)
    def test_a_closed_map_is_read_if_and_only_if_it_is_in_one_piece(self, inner):
        rows = ["#" * 6, *(f"#{row}#" for row in inner), "#" * 6]
        free = np.array([[c == "." for c in row] for row in rows])
        spread = np.zeros_like(free)
        spread.flat[free.argmax()] = free.any()
        for _ in range(free.size):  # flooding, as slow as it is plain
            near = spread.copy()
            near[1:] |= spread[:-1]
            near[:-1] |= spread[1:]
            near[:, 1:] |= spread[:, :-1]
            near[:, :-1] |= spread[:, 1:]
            spread = near & free
        if free.sum() >= 2 and (spread == free).all():
            assert parse_map("\n".join(rows)).rows == tuple(rows)
        else:
            with pytest.raises(ValueError, match="cannot be reached|only free cell|no free cell"):
                parse_map("\n".join(rows))


class TestTask:
    @pytest.mark.parametrize("rows", [LOOP, ("####", "#..#", "####"), ("#####", "#.G.#", "#####")])
    def test_starts_and_goals_are_the_maps(self, rows):
        maze = parse_map("\n".join(rows))
        task, text = own_task("mine", maze), "".join(rows)
        marked = {letter: [c for c in maze.free_cells if rows[c[0]][c[1]] == letter] for letter in "SG"}
        with Simulators(task, 1) as simulators:
            begun = [simulators.reset([seed]) for seed in range(60)]
        assert {maze.cell(states[0, :2]) for states, _ in begun} == set(marked["S"] or maze.free_cells)
        assert {maze.cell(goals[0]) for _, goals in begun} == set(marked["G"] or maze.free_cells)
        assert (task.goal_cell is None) == ("G" not in text)
        assert task.score_range is None

    def test_walls_stand_where_the_map_says(self):
        """A ball pushed for half a second from the middle of a cell leaves it where no wall is, and only there."""
        task = own_task("mine", MazeMap(LOOP))
        with Simulators(task, 1) as simulators:
            simulators.reset([0])
            env = simulators.envs[0]
            for cell in task.maze.free_cells:
                for side in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                    env.point_env.set_state(task.maze.center(cell), np.zeros(2))
                    for _ in range(50):
                        place = env.step(np.array([side[1], -side[0]], float))[0]["observation"][:2]
                    beyond = (cell[0] + side[0], cell[1] + side[1])
                    assert (task.maze.cell(place) == cell) == bool(task.maze.walls[beyond])

    def test_data_belongs_to_the_walls_alone(self):
        task = own_task("mine", MazeMap(LOOP))
        moved = own_task("mine", MazeMap(tuple(r.replace("G", ".") for r in LOOP)))
        other = own_task("mine", MazeMap((*LOOP[:2], "#..##.#", *LOOP[3:])))
        assert task.dataset == moved.dataset != other.dataset
        assert task.record() != moved.record()
        minari.dataset.minari_dataset.parse_dataset_id(task.dataset)

    def test_records_bring_the_task_back(self):
        task = own_task("My Maze (2)", MazeMap(LOOP))
        again = task_of(task.record())
        assert task.name == "maze2d-my-maze-2" == again.name
        assert (again.maze, again.goal_cell, again.start_cells) == (task.maze, (1, 5), ((1, 1), (3, 1)))
        assert (again.dataset, again.spec, again.horizon) == (task.dataset, task.spec, task.horizon)
        assert task_of({"task": "maze2d"}) is find_task("maze2d")
        assert "map" not in find_task("maze2d-giant").record()

    @pytest.mark.parametrize(
        ("record", "message"),
        [
            ({"task": "maze2d-umaze", "map": list(LOOP)}, "'umaze' would make the task maze2d-umaze, which is another"),
            ({"task": "hopper", "map": list(LOOP)}, "'hopper' has a map and is no maze2d-NAME"),
            ({"task": "maze2d-mine", "map": "####"}, "must be a list of rows"),
            ({"task": "maze2d-mine", "map": [[1, 1]]}, "must be a list of rows"),
            ({"task": 3, "map": list(LOOP)}, "must be a list of rows"),
            ({"task": "maze2d-mine", "map": ["###", "#.#", "###"]}, "only free cell"),
            ({"task": "maze2d-mine", "map": []}, "is empty"),
            ({"task": "maze2d-mine"}, "unknown task 'maze2d-mine'"),
        ],
    )
    def test_records_of_no_task_are_refused(self, record, message):
        with pytest.raises(ValueError, match=message):
            task_of(record)

    @pytest.mark.parametrize("name", ["umaze", "UMaze", "giant", "medium", "umaze-stitch", "迷宮", "-_-", "x" * 41])
    def test_names_that_cannot_be(self, name):
        with pytest.raises(ValueError, match="rename the file"):
            own_task(name, MazeMap(LOOP))

    def test_the_name_on_the_command_line(self, tmp_path):
        file = write(tmp_path, LINE)
        assert task_on("maze2d", file).name == task_on("maze2d-mine", file).name == "maze2d-mine"
        for name in ("hopper-medium", "maze2d-large", "maze2d-umaze"):
            with pytest.raises(ValueError, match=f"--map is for maze2d, not for {name}: write maze2d --map"):
                task_on(name, file)
        with pytest.raises(ValueError, match="multi2d.*without a G every episode draws a fresh goal"):
            task_on("multi2d", file)
        with pytest.raises(ValueError, match="unknown task 'mase2d'"):
            task_on("mase2d", file)


class TestPace:
    @pytest.mark.parametrize("size", MAZES)
    def test_longest_routes_are_those_of_trying_every_pair(self, size):
        maze = MAZES[size]
        assert len(maze.longest_route) == max(len(maze.route(a, b)) for a in maze.free_cells for b in maze.free_cells)

    @pytest.mark.parametrize("size", MAZES)
    def test_known_mazes_get_about_what_they_have(self, size):
        known, own = find_task(f"maze2d-{size}"), pace_of(MAZES[size])
        assert (own.stride, own.tempo) == (known.spec.stride, known.tempo)
        usual = {"select": "fastest", "raced_candidates": 1, "raced_steps": 2}
        assert usual | own.sampling == known.sampling
        assert own.horizon == pytest.approx(known.horizon, rel=0.12)
        assert own.episode_steps == pytest.approx(known.episode_steps, rel=0.1)
        assert own.minutes == pytest.approx(known.minutes, rel=0.2)

    @pytest.mark.parametrize("cells", [2, 3, 5, 9, 14, 30])
    def test_horizons_are_no_longer_than_the_datas_episodes(self, cells):
        """In corridors, and in rooms, whose ways are quick."""
        side = (cells + 1) // 2
        shapes = {(1, cells), (side, cells + 1 - side)}
        for height, width in shapes:
            rows = ["#" * (width + 2), *(["#" + "." * width + "#"] * height), "#" * (width + 2)]
            task = own_task("mine", parse_map("\n".join(rows)))
            longest = max(len(e.actions) for e in record_maze(task.maze, steps=20_000, seed=0))
            assert len(task.maze.longest_route) == cells
            assert (task.horizon - 1) * task.spec.stride <= longest

    def test_long_winding_routes_are_collected_too(self):
        """They take longer than what is patience in the mazes of D4RL."""
        lanes = ["#" * 17, "#" + "." * 15 + "#", "#" * 15 + ".#", "#" + "." * 15 + "#", "#." + "#" * 15]
        maze = parse_map("\n".join((lanes[:1] + lanes[1:] * 4)[:16] + lanes[:1]))
        assert max(len(e.actions) for e in record_maze(maze, steps=8000, seed=0)) > PATIENCE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["mine", "giant"])
def test_data_of_maps_that_gymnasium_has_not(name, tmp_path, monkeypatch):
    """They are a Minari dataset whose environment is that maze, and whose metadata has the map."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    task = find_task("maze2d-giant") if name == "giant" else own_task(name, MazeMap(LOOP))
    list(collect(task, steps=1500))
    assert describe(task.dataset).provenance["map"] == list(task.maze.walls_alone)
    env = minari.load_dataset(task.dataset).recover_environment()
    assert env.unwrapped.maze.maze_map == task.maze.gymnasium_map
    episodes = load_episodes(task.dataset, task)
    assert episodes.steps >= 1500
    assert task.maze.clearance(episodes.observations[:, :2]).min() > 0.05
    assert episodes.rewards.max() <= 1


@pytest.mark.parametrize("name", ["maze2d-giant", "multi2d-giant"])
def test_the_waypoint_controller_reaches_goals_in_giant(name):
    task, seeds = find_task(name), range(12)
    stats = summarize("waypoint controller", task, run_policy(task, WaypointPolicy(task, seeds), seeds=seeds))
    assert stats.success_rate == 1.0
    assert stats.returns.mean > 600
    assert stats.score_strict is stats.score_latched is None


def test_without_a_range_returns_are_told_and_scored_ones_are_as_before():
    numbers = {"success_rate": 0.5, "steps_to_goal_mean": 12.0, "return_mean": 3.25, "return_ci95": 0.5}
    plain = numbers | {"score_strict": None, "score_latched": None}
    assert header_of(plain) == ["method", "success", "steps to goal", "return"]
    assert table_rows(plain) == [["diffplan", "50%", "12", "3.2 ± 0.5"]]
    scored = numbers | {"score_strict": 9.0, "score_strict_ci95": 1.0, "score_latched": 10.0}
    assert table_rows(scored) == [["diffplan", "9.0 ± 1.0", "10.0", "50%", "12", "3.2"]]
    assert len(header_of(scored)) == 6


def test_every_maze_task_with_a_range_is_d4rls():
    scored = {t.name for t in all_tasks().values() if getattr(t, "maze", None) and t.score_range}
    assert {n.split("-")[1] for n in scored} == {"umaze", "medium", "large"}
    assert replace(find_task("maze2d-giant"), score_range=(0.0, 1.0)).score_range
