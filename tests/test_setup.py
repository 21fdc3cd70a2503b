"""Setting up: one command, nothing done twice, nothing taken for done that is not."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent

FAKE_PYTHON = """#!/bin/sh
# Stands for Python in the Makefile: notes what it is asked for, makes what venv would make.
echo "$*" >>"$CALLS"
case "$*" in
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip install"*) [ -z "${PIP_FAILS-}" ] ;;
  "-c "*) [ -z "${TOO_OLD-}" ] ;;
esac
"""


class Checkout:
    """A copy of what the Makefile needs, in a folder with a blank in its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a checkout"
        self.folder.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.folder)
        self.calls_file = self.folder / "calls.txt"
        self.python = self.folder / "fake_python"
        self.python.write_text(FAKE_PYTHON, encoding="utf-8")
        self.python.chmod(0o755)

    def make(self, target: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run make, the fake Python in Python's place; forget the calls noted before."""
        self.calls_file.write_text("", encoding="utf-8")
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
        return subprocess.run(
            ["make", "--no-print-directory", target, "PYTHON=./fake_python"],
            cwd=self.folder,
            env={**clean, "CALLS": str(self.calls_file), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self, beginning: str) -> list[str]:
        """What Python was asked for in the last run, of those that begin so."""
        lines = self.calls_file.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.startswith(beginning)]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_setup_installs_the_locked_versions_and_fetches_the_model(checkout):
    assert checkout.make("setup").returncode == 0
    (install,) = checkout.calls("-m pip install")
    assert "--constraint constraints.txt" in install
    assert install.endswith("--editable .[dev]")
    assert checkout.calls("-m labkit.cli fetch real")


def test_setup_again_installs_nothing_but_looks_at_the_model(checkout):
    checkout.make("setup")
    assert checkout.make("setup").returncode == 0
    assert not checkout.calls("-m pip")
    assert not checkout.calls("-m venv")
    assert checkout.calls("-m labkit.cli fetch real")


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_versions_are_installed(checkout, name):
    checkout.make("setup")
    later = (checkout.folder / ".venv" / ".labkit-ready").stat().st_mtime + 5
    os.utime(checkout.folder / name, (later, later))
    checkout.make("setup")
    assert checkout.calls("-m pip install")


def test_an_installation_that_failed_is_taken_up_again(checkout):
    assert checkout.make("setup", PIP_FAILS="1").returncode != 0
    assert not checkout.calls("-m labkit.cli fetch")
    assert checkout.make("setup").returncode == 0
    assert checkout.calls("-m pip install")


def test_a_python_that_is_too_old_is_one_sentence(checkout):
    done = checkout.make("setup", TOO_OLD="1")
    assert done.returncode == 2
    assert "at least 3.11" in done.stderr
    assert not (checkout.folder / ".venv").exists()


def test_lab_opens_the_first_notebook_and_test_runs_the_doctor_first(checkout):
    assert checkout.make("lab").returncode == 0
    (call,) = checkout.calls("-m jupyter lab")
    assert call.endswith("/lab/tree/notebooks/00_start_here.ipynb")  # links to docs work
    assert checkout.make("test").returncode == 0
    both = [line for line in checkout.calls("-m ") if "doctor" in line or "pytest" in line]
    assert both == ["-m labkit.cli doctor --tests", "-m pytest -n 2 --dist loadfile"]


def test_grading_needs_a_folder_and_says_so_before_anything_is_set_up(checkout):
    done = checkout.make("grade")
    assert done.returncode == 2
    assert "make grade SUBMISSIONS=folder" in done.stderr
    assert not (checkout.folder / ".venv").exists()
    assert checkout.make("grade", SUBMISSIONS="a folder").returncode == 0
    assert checkout.calls("-m labkit.cli grade") == ["-m labkit.cli grade a folder"]
    assert checkout.make("assignments").returncode == 0
    assert checkout.calls("-m labkit.cli assignments")


def pins(lines) -> dict[str, str]:
    """The version of each requirement that is pinned to one, by the package's plain name."""
    requirements = [Requirement(line) for line in lines]
    found = {}
    for requirement in requirements:
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        found[canonicalize_name(requirement.name)] = specifier.version
    return found


def locked() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return pins(line for line in lines if line and not line.startswith("#"))


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_lock_agrees_with_what_the_project_pins():
    wanted = pins([*project()["dependencies"], *project()["optional-dependencies"]["dev"]])
    assert {name: locked().get(name) for name in wanted} == wanted


def test_the_lock_holds_every_package_that_the_project_brings_along():
    seen: set[str] = set()

    def visit(name: str, extras: set[str]) -> None:
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            wanted = [{"extra": extra} for extra in (extras or {""})]
            if requirement.marker and not any(map(requirement.marker.evaluate, wanted)):
                continue
            key = canonicalize_name(requirement.name)
            if key not in seen:
                seen.add(key)
                visit(requirement.name, set(requirement.extras))

    visit("labkit", {"", "dev"})
    assert len(seen) > 100
    unlocked = seen - set(locked())
    builds = {name for name in unlocked if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert unlocked - builds <= {"setuptools"}  # torch asks for it from Python 3.12 on


def test_conda_installs_the_same_versions_on_a_python_that_fits():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, by_pip = environment["dependencies"]
    assert by_pip["pip"] == ["--constraint constraints.txt", "--editable .[dev]"]
    (python,) = [item for item in conda if item.startswith("python=")]
    version = tuple(map(int, python.removeprefix("python=").split(".")))
    assert version >= (3, 11)
    assert project()["requires-python"] == ">=3.11"


@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts need a POSIX system")
@pytest.mark.parametrize("name", [".ci/run", "postBuild"])
def test_scripts_are_runnable_and_stop_at_the_first_failure(name):
    path = ROOT / name
    assert os.access(path, os.X_OK)
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^set -eu$", text, re.MULTILINE)
    subprocess.run(["sh", "-n", str(path)], check=True)


def test_torch_comes_from_the_index_that_is_named_and_from_none_otherwise(checkout):
    checkout.make("setup")
    assert "--extra-index-url" not in checkout.calls("-m pip install")[0]
    (checkout.folder / ".venv" / ".labkit-ready").unlink()
    assert checkout.make("setup", TORCH="cpu").returncode == 0
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in " ".join(
        checkout.calls("-m pip install")
    )


def test_every_make_target_is_explained_without_make():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "windows.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE)) - {"help", "named"}
    assert targets == set(re.findall(r"^\| `make (\w+)", page, re.MULTILINE))
