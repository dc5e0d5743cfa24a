"""Arrays beside a dataset: the same as from memory, made once, and never trusted when they are not what was written."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from diffplan.envs import arrays as module
from diffplan.envs.arrays import NAMES, Row, recorded
from diffplan.envs.growing import Growing
from diffplan.planner.episodes import Episodes

LENGTHS = (4, 1, 9, 30)


class Source:
    """A dataset of random numbers that counts how often it is read, and how many episodes of it are held at once."""

    def __init__(self, lengths=LENGTHS, seed=0) -> None:
        rng = np.random.default_rng(seed)
        self.rows = [
            Row(rng.normal(size=(n + 1, 3)), rng.uniform(-1, 1, (n, 2)), rng.normal(size=n), bool(i % 2))
            for i, n in enumerate(lengths)
        ]
        self.read, self.given = 0, 0

    def __call__(self, dataset_id: str):
        self.read += 1
        return f"environment of {dataset_id}", self.stream()

    def stream(self):
        for row in self.rows:
            self.given += 1
            yield row

    def episodes(self) -> Episodes:
        parts = zip(*self.rows, strict=True)
        return Episodes.from_arrays(*(list(part) for part in parts))


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "set" / "data").mkdir(parents=True)
    (tmp_path / "set" / "data" / "main_data.hdf5").write_bytes(b"whatever")
    return tmp_path / "set"


def ask(folder: Path, source: Source, dtype="float32"):
    return recorded(folder, "me/own-v0", source, dtype=dtype)


def only_made(folder: Path) -> Path:
    (made,) = (folder / "arrays").iterdir()
    return made


def same(found, source: Source) -> bool:
    episodes, got = source.episodes(), [getattr(found, name) for name in NAMES]
    want = [getattr(episodes, name) for name in NAMES]
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(got, want, strict=True))


class TestMaking:
    def test_they_are_what_episodes_in_memory_are(self, folder):
        source = Source()
        found = ask(folder, source)
        assert same(found, source)
        assert found.environment == "environment of me/own-v0"
        arrays = {name: getattr(found, name) for name in NAMES}
        assert Episodes(**arrays).fingerprint() == source.episodes().fingerprint()

    def test_they_are_read_once_and_then_mapped(self, folder):
        source = Source()
        first, again = ask(folder, source), ask(folder, source)
        assert source.read == 1
        for found, name in itertools.product((first, again), NAMES):
            array = getattr(found, name)
            assert isinstance(array.base, np.memmap) and not array.flags.writeable and type(array) is np.ndarray

    def test_as_they_were_recorded(self, folder):
        """Beside those in single precision, of what other tasks make of the same data."""
        source = Source()
        single, own = ask(folder, source), ask(folder, source, None)
        assert own.observations.dtype == np.float64 and own.actions.dtype == np.float32
        np.testing.assert_array_equal(own.observations, np.concatenate([r.observations for r in source.rows]))
        assert len(list((folder / "arrays").iterdir())) == 2
        assert same(single, source) and same(ask(folder, source), source) and source.read == 2

    def test_episodes_are_written_one_by_one(self, folder, monkeypatch):
        source, written = Source(), []
        append = Growing.append
        monkeypatch.setattr(Growing, "append", lambda self, rows: (written.append(source.given), append(self, rows))[1])
        ask(folder, source)
        assert written == [n for n in range(1, len(LENGTHS) + 1) for _ in range(3)]

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda row: row._replace(actions=row.actions[:-1]), "expected T [+] 1 and T > 0"),
            (lambda row: row._replace(observations=row.observations[:, :2]), "episode 2 has widths 2 and 2"),
            (lambda row: row._replace(rewards=row.rewards[1:]), "9 actions and 8 rewards"),
            (lambda row: row._replace(observations=row.observations[:, 0]), "must be a matrix"),
        ],
    )
    def test_episodes_that_do_not_fit_are_refused_and_leave_nothing(self, folder, spoil, words):
        source = Source()
        source.rows[2] = spoil(source.rows[2])
        with pytest.raises(ValueError, match=words):
            ask(folder, source)
        assert list((folder / "arrays").iterdir()) == []

    def test_no_episodes_are_refused(self, folder):
        with pytest.raises(ValueError, match="no episodes"):
            ask(folder, Source(()))


def cut_short(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 4)


def foreign(file: Path) -> None:
    """As large, and of the same type and shape."""
    np.save(file, np.load(file) + 1 if file.stem != "terminated" else ~np.load(file))


def pickled(file: Path) -> None:
    file.unlink()
    np.save(file, np.array([{"code": 1}], dtype=object), allow_pickle=True)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spoil", [cut_short, foreign, pickled, empty, Path.unlink])
def test_what_is_not_what_was_written_is_made_again(folder, name, spoil):
    source = Source()
    ask(folder, source)
    spoil(only_made(folder) / f"{name}.npy")
    assert same(ask(folder, source), source)
    assert source.read == 2
    assert same(ask(folder, source), source) and source.read == 2


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"files": 3}', "\x00"])
def test_an_index_that_says_nothing_is_made_again(folder, text):
    source = Source()
    ask(folder, source)
    (only_made(folder) / "index.json").write_text(text)
    assert same(ask(folder, source), source) and source.read == 2


class TestStaleness:
    def test_files_that_change_are_read_again_and_old_arrays_removed(self, folder):
        ask(folder, Source(seed=1))
        old = only_made(folder)
        (folder / "data" / "main_data.hdf5").write_bytes(b"something else")
        source = Source(seed=2)
        assert same(ask(folder, source), source)
        assert only_made(folder) != old

    @pytest.mark.parametrize("change", ["touched", "added"])
    def test_any_change_counts(self, folder, change):
        ask(folder, Source())
        if change == "touched":
            os.utime(folder / "data" / "main_data.hdf5", ns=(1, 1))
        else:
            (folder / "data" / "metadata.json").write_text("{}")
        source = Source(seed=2)
        assert same(ask(folder, source), source) and source.read == 1

    def test_arrays_in_use_stay_when_they_are_removed(self, folder):
        source = Source()
        found = ask(folder, source)
        shutil.rmtree(folder / "arrays")
        assert same(found, source)

    def test_a_folder_that_was_moved_is_not_read_again(self, folder):
        source = Source()
        ask(folder, source)
        moved = folder.rename(folder.with_name("elsewhere"))
        assert same(ask(moved, source), source) and source.read == 1

    def test_what_was_never_finished_is_removed_in_time(self, folder):
        (folder / "arrays").mkdir()
        old, new = (folder / "arrays" / f".making-{name}" for name in ("old", "new"))
        for begun in (old, new):
            begun.mkdir()
        os.utime(old, (time.time() - 2 * module.FORGOTTEN_SECONDS,) * 2)
        ask(folder, Source())
        assert new.exists() and not old.exists()


class TestWhereNothingCanBeWritten:
    @pytest.fixture
    def locked(self, folder, monkeypatch) -> Path:
        """As for a user who may only read."""

        def refused(*_, **__):
            raise PermissionError("read-only")

        monkeypatch.setattr(tempfile, "TemporaryDirectory", refused)
        module._gathered.cache_clear()
        return folder

    def test_arrays_are_in_memory_and_kept(self, locked):
        source = Source()
        assert same(ask(locked, source), source) and same(ask(locked, source), source)
        assert source.read == 1 and list((locked / "arrays").iterdir()) == []

    def test_a_disk_that_fills_up_leaves_nothing(self, folder, monkeypatch):
        def full(self, rows):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Growing, "append", full)
        source = Source(seed=5)
        assert same(ask(folder, source), source)
        assert list((folder / "arrays").iterdir()) == []

    def test_what_cannot_be_read_is_said(self, folder):
        def broken(dataset_id):
            raise OSError("truncated file")

        with pytest.raises(OSError, match="truncated file"):
            recorded(folder, "me/own-v0", broken)


def test_two_that_make_them_at_once_both_have_them(folder):
    """The other one is done while this one still reads."""
    source, other = Source(), Source()

    def slow(dataset_id):
        assert same(ask(folder, other), other)
        return source(dataset_id)

    assert same(recorded(folder, "me/own-v0", slow, dtype="float32"), source)
    only_made(folder)
    assert source.read == other.read == 1


class TestGrowing:
    @pytest.mark.parametrize("pieces", [[3], [1, 0, 5], [0, 2], [1] * 40])
    @pytest.mark.parametrize("tail", [(), (2,), (3, 2)])
    def test_it_is_the_concatenation(self, tmp_path, pieces, tail):
        rng = np.random.default_rng(0)
        parts = [rng.normal(size=(n, *tail)).astype(np.float32) for n in pieces]
        with Growing(tmp_path / "a.npy") as file:
            for part in parts:
                file.append(part)
        got = np.load(tmp_path / "a.npy", mmap_mode="r")
        assert got.dtype == np.float32 and np.array_equal(got, np.concatenate(parts))

    def test_headers_leave_room_for_any_length(self, tmp_path):
        with Growing(tmp_path / "a.npy") as file:
            file.append(np.zeros((1, 4), np.float32))
            begin = file.body
            file.rows = 10**15
            assert file._write_header() == begin
            file.rows = 1

    def test_after_an_error_it_is_closed_and_says_that_it_has_no_rows(self, tmp_path):
        file = Growing(tmp_path / "a.npy")
        file.append(np.zeros((3, 4)))
        file.__exit__(KeyError, KeyError(), None)
        assert file.file.closed
        assert np.load(tmp_path / "a.npy").shape == (0, 4)


MEMORY = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from diffplan.envs.arrays import Row, recorded
from diffplan.envs.tasks import find_task
from diffplan.planner.episodes import Episodes
from diffplan.planner.normalizer import Normalizer
from diffplan.planner.windows import Windows

def anonymous():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("RssAnon"))
    return int(line.split()[1]) / 1024

def rows():
    rng = np.random.default_rng(0)
    for _ in range(int(sys.argv[2]) // 200):
        yield Row(rng.normal(size=(201, 4)), rng.uniform(-1, 1, (200, 2)), np.zeros(200), False)

torch.set_num_threads(1)
task = find_task("maze2d-umaze")
fit = lambda e: (Windows(e, task.spec, horizon=task.horizon), Normalizer.fit(e, task.spec, "gaussian"))
small = Episodes.from_arrays([np.zeros((301, 4))], [np.zeros((300, 2))])
fit(small)[0].sample(64, torch.Generator())
before = anonymous()
found = recorded(Path(sys.argv[1]), "me/own-v0", lambda _: ("", rows()), dtype="float32")
made = anonymous()
episodes = Episodes(found.observations, found.actions, found.offsets, found.rewards, found.terminated)
episodes.fingerprint()
windows, _ = fit(episodes)
for i in range(200):
    windows.sample(64, torch.Generator().manual_seed(i))
print(json.dumps([made - before, anonymous() - before, episodes.steps]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much memory is anonymous")
def test_memory_of_its_own_does_not_grow_with_the_data(folder):
    """Two million steps are 56 MB as arrays; the allocator is told to keep nothing of what was given back."""
    command = [sys.executable, "-c", MEMORY, str(folder), "2000000"]
    keeping_nothing = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | keeping_nothing)
    making, training, steps = json.loads(run.stdout)
    assert steps == 2_000_000
    assert making < 10
    assert training < 10
