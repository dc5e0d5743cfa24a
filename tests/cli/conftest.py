"""What the tests of the command line share."""

import pytest
from typer.testing import CliRunner

from diffplan.cli.main import app


@pytest.fixture
def cli(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        return CliRunner().invoke(app, [str(w) for w in words])

    return run
