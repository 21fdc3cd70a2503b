"""Build step that puts the data folder and the course into the wheel; all else: pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithData(build_py):
    """Copy ``data`` and ``notebooks`` into the package, except where it is installed editable."""

    def run(self) -> None:
        """Build the package, then copy."""
        super().run()
        if self.editable_mode:
            return
        for folder in ("data", "notebooks"):
            skipped = shutil.ignore_patterns(
                "assignments", ".ipynb_checkpoints", "predictions.json"
            )
            target = Path(self.build_lib) / "labkit" / folder
            shutil.copytree(folder, target, ignore=skipped, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithData})
