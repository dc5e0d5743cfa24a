import pytest

from diffplan.planner.files import whole_file


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "a.json"
    with whole_file(target) as scratch:
        scratch.write_text("half")
        assert scratch.suffix == ".json"
        assert not target.exists()
        scratch.write_text("whole")
    assert target.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [target]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")

    def fail():
        with whole_file(target) as scratch:
            scratch.write_text("ha")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
