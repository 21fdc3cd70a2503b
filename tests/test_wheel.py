"""The wheel, as someone without a checkout has it: notebook 00 runs in an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from labkit.paths import carried

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("labkit", "data", "notebooks", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def run(*words: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "LABKIT_DATA"}}
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment's Python: the wheel is installed, all else borrowed from this one."""
    home = tmp_path_factory.mktemp("wheel")
    source = home / "source"
    source.mkdir()
    for part in PARTS:
        path = ROOT / part
        (shutil.copytree if path.is_dir() else shutil.copy)(path, source / part)
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(sys.executable, *build, "--wheel-dir", home, source, cwd=home)
    (wheel,) = home.glob("labkit-*.whl")
    venv.create(home / "fresh", with_pip=False)
    made = home / "fresh" / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = run(made, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home)
    borrowed = Path(site.strip()) / "borrowed.pth"
    borrowed.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--python", made, "install", "--quiet", "--no-deps")
    run(*pip, "--force-reinstall", wheel, cwd=home)
    return made


def test_the_wheel_carries_data_and_notebooks_and_no_solution(python, tmp_path):
    code = "from labkit.paths import carried; print(carried('data')); print(carried('notebooks'))"
    data, notebooks = map(Path, run(python, "-c", code, cwd=tmp_path).split())
    assert python.parents[1] in data.parents
    assert (data / "heads" / "tiny" / "model.safetensors").is_file()
    assert sorted(path.name for path in notebooks.glob("*.ipynb")) == sorted(
        path.name for path in carried("notebooks").glob("*.ipynb")
    )
    assert not (notebooks / "assignments").exists()


def test_notebook_00_runs_from_an_empty_folder(python, tmp_path):
    first = tmp_path / "00_start_here.ipynb"
    shutil.copy(ROOT / "notebooks" / first.name, first)
    said = run(python, "-m", "labkit.cli", "notebooks", "--base", "tiny", first, cwd=tmp_path)
    assert "clean" in said
    assert sorted(tmp_path.iterdir()) == [first]


def test_what_is_there_already_is_kept(python, tmp_path):
    said = run(python, "-m", "labkit.course.setup", cwd=tmp_path)
    assert "nothing; all was there" in said
