"""The command line as a whole: quick, and every mistake one sentence with exit status 2."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from labkit.cli import main
from labkit.cli._group import CommandGroup
from labkit.cli._output import Report, columns, reports
from labkit.errors import LabkitError
from labkit.records import RecordError

FULL = Path("/dev/full")


def every_command(group: CommandGroup = main, path: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """The words of each command there is, groups included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield [*path, name]
        if isinstance(command, CommandGroup):
            yield from every_command(command, (*path, name))


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`labkit` with these words, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "labkit.cli", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_one_sentence(status: int, stdout: str, stderr: str) -> None:
    assert status == 2, stderr
    assert stdout == ""
    assert stderr.startswith("labkit: ")
    assert stderr.endswith((".\n", "?\n"))
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("words", list(every_command()), ids=" ".join)
def test_every_command_explains_itself(words):
    result = CliRunner().invoke(main, [*words, "--help"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("Usage: ")
    command = main
    for word in words:
        command = command.get_command(click.Context(command), word)
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.name} is not explained"


def test_help_and_version_are_quick_because_nothing_heavy_is_imported():
    code = (
        "import sys\nfrom labkit.cli import main\n"
        "try: main([sys.argv[1]])\nexcept SystemExit as end: assert end.code == 0\n"
        "print(*sorted({'torch', 'numpy', 'transformers', 'pydantic', 'numba'} & set(sys.modules)))"
    )
    for word in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", code, word], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == ""


def test_importing_labkit_imports_no_torch_and_no_numpy():
    code = "import labkit, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_version_is_the_installed_one():
    assert run("--version").stdout == f"labkit {importlib.metadata.version('labkit')}\n"


def test_without_a_command_the_help_is_shown():
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 0
    assert "doctor" in result.stdout


def test_an_unknown_command_is_answered_with_those_there_are():
    result = CliRunner().invoke(main, ["docter"])
    assert_one_sentence(result.exit_code, result.stdout, result.stderr)
    assert "'docter'" in result.stderr
    assert "doctor" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--no-such-option"],
        ["doctor", "--no-such-option"],
        ["doctor", "surplus"],
        ["fetch", "everything"],
        ["mbr"],
        ["mbr", "--prompt", "hello", "--samples", "-3"],
        ["mbr", "--prompt", "hello", "--samples", "many"],
        ["mbr", "--prompt", "hello", "--max-new-tokens", "0"],
        ["mbr", "--prompt", "hello", "--weights", "heavy"],
    ],
    ids=" ".join,
)
def test_words_that_cannot_be_used_are_one_sentence(words):
    result = CliRunner().invoke(main, words)
    assert_one_sentence(result.exit_code, result.stdout, result.stderr)


def group_of(command: click.Command) -> CommandGroup:
    """A group whose one command, ``it``, is the given one."""
    group = CommandGroup("labkit", package="labkit.cli")
    group.list_commands = lambda ctx: ["it"]
    group.get_command = lambda ctx, name: command
    return group


def group_that_raises(error: Exception) -> CommandGroup:
    """A group whose one command ends in ``error``."""

    @click.command()
    def command() -> None:
        raise error

    return group_of(command)


def test_a_report_is_printed_with_its_status_and_then_its_problem():
    @reports
    @click.option("--many", default=2, help="How many.")
    def command(*, many: int) -> Report | None:
        print("what a library prints")
        return Report({"many": many}, f"{many} things", 1, "too few" if many == 1 else "")

    def run_it(*words: str):
        return CliRunner().invoke(group_of(command), ["it", *words])

    assert (run_it().stdout, run_it().exit_code) == ("2 things\n", 1)
    assert run_it("--json").stdout == '{"many": 2}\n'
    assert "what a library prints" in run_it("--json").stderr
    lost = run_it("--many", "1")
    assert (lost.stdout, lost.exit_code) == ("1 things\n", 2)
    assert lost.stderr.endswith("labkit: too few.\n")
    assert "[default: 2]" in run_it("--help").stdout


def test_a_column_leaves_out_what_is_not_known():
    rows = [{"name": "a", "share": 0.5}, {"name": "b", "share": None}]
    shown = columns(rows, ("name", "{name}"), ("share", "{share:.0%}"))
    assert shown.splitlines() == ["name  share", "a     50%", "b"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LabkitError("The prompt is empty: give some text."), "The prompt is empty"),
        (RecordError("Not a trace record:\n  steps: missing"), "Not a trace record: steps:"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device."),
        (OSError(errno.ENOSPC, "No space left on device", "out.json"), "out.json: No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "out.json"), "Permission denied."),
        (click.UsageError("No such thing"), "No such thing."),
    ],
)
def test_what_a_person_can_mend_is_told_in_one_sentence(error, said):
    result = CliRunner().invoke(group_that_raises(error), ["it"])
    assert_one_sentence(result.exit_code, result.stdout, result.stderr)
    assert said in result.stderr


def test_a_mistake_of_the_code_is_not_hidden():
    result = CliRunner().invoke(group_that_raises(ZeroDivisionError("a bug")), ["it"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_an_interrupt_ends_quietly():
    result = CliRunner().invoke(group_that_raises(KeyboardInterrupt()), ["it"])
    assert result.exit_code == 130
    assert result.stderr.strip() == "labkit: Interrupted."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mbr", "--prompt", ""], "empty"),
        (["mbr", "--prompt", "x" * 128], "128"),
        (["mbr", "--prompt", "hello", "--utility", "taste"], "'taste'"),
        (["mbr", "--prompt", "hello", "--temperature", "-1"], "-1"),
        (["mbr", "--prompt", "hello", "--device", "abacus"], "'abacus'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else value,
)
def test_bad_input_to_a_real_process_is_one_sentence_without_a_traceback(toy_folder, words, said):
    done = run(*words, "--base", str(toy_folder))
    assert_one_sentence(done.returncode, done.stdout, done.stderr)
    assert said in done.stderr


def test_an_unknown_model_is_named():
    done = run("mbr", "--prompt", "hello", "--base", "reel", HF_HUB_OFFLINE="1")
    assert_one_sentence(done.returncode, done.stdout, done.stderr)
    assert "'reel'" in done.stderr


def test_a_missing_real_model_is_named_with_the_command_that_fetches_it(tmp_path):
    done = run("mbr", "--prompt", "hello", LABKIT_CACHE=str(tmp_path))
    assert_one_sentence(done.returncode, done.stdout, done.stderr)
    assert "labkit fetch real" in done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="needs Linux's device that is always full")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["record"], "Missing option '--out'"),
        (["gallery"], "Missing option '--out'"),
        (["bench", "gpu"], "Missing option '--out'"),
        (["mbr", "--prompt", "hello", "--seed", "-1"], "'--seed'"),
        (["bench", "serving", "--seed", "-1"], "'--seed'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else value,
)
def test_options_that_are_missing_or_out_of_range_are_named(words, said):
    result = CliRunner().invoke(main, words)
    assert_one_sentence(result.exit_code, result.stdout, result.stderr)
    assert said in result.stderr


def test_a_full_disk_under_the_output_is_one_sentence():
    with FULL.open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "labkit.cli", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert_one_sentence(done.returncode, "", done.stderr)


def test_every_command_takes_json():
    for words in every_command():
        command: click.Command = main
        for word in words:
            command = command.get_command(click.Context(command), word)
        if not isinstance(command, CommandGroup):
            assert "as_json" in {option.name for option in command.params}, words


def test_json_is_one_object_and_alone_on_standard_output(toy_folder):
    words = ["--prompt", "hello", "--samples", "3", "--max-new-tokens", "4", "--json"]
    done = run("mbr", "--base", str(toy_folder), *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert isinstance(json.loads(done.stdout), dict)
