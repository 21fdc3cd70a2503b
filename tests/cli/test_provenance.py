"""The command in a record is the one that ran, with every option that was given."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from labkit.cli import main
from labkit.cli._output import given_command


@pytest.mark.parametrize(
    "words",
    [
        "record --base tiny --only race --only tree --out records",
        "record --only tree --base tiny --out records",
    ],
)
def test_options_are_recorded_as_given_and_json_is_not(
    words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorded: list[str] = []

    def record(*given: object) -> list[Path]:
        recorded.append(str(given[-1]))
        return []

    monkeypatch.setattr("labkit.recordings.record", record)
    for extra in ([], ["--json"]):
        done = CliRunner().invoke(main, [*words.split(), *extra])
        assert done.exit_code == 0, done.stderr
    assert recorded == [f"labkit {words}"] * 2


def test_a_module_that_was_run_is_the_command_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    @click.option("--fast", is_flag=True)
    @click.option("--rate", type=float)
    def command(fast: bool, rate: float) -> None:
        click.echo(given_command())

    done = CliRunner().invoke(command, ["--rate", "2", "--fast"], prog_name="python -m module")
    assert done.stdout == "command --rate 2 --fast\n"
