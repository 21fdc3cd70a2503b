"""Run a widget's JavaScript under node: its own tests, or one expression on data from Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WIDGETS = HERE.parents[1] / "labkit" / "widgets"


def node() -> str:
    """The path of node, which these tests cannot do without."""
    found = shutil.which("node")
    assert found, "These tests run the widgets' JavaScript and need node 20 or later on the PATH."
    return found


def run_tests(name: str) -> None:
    """Run ``name``.test.mjs by node's own test runner; its report is the failure's text."""
    done = subprocess.run(
        [node(), "--test", str(HERE / f"{name}.test.mjs")],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def evaluate(module: str, expression: str, data: Any) -> Any:
    """The value of a JavaScript expression in which ``m`` is the module and ``data`` the data."""
    program = f"""
        import * as m from {json.dumps((WIDGETS / module).as_uri())};
        import {{ readFileSync }} from "node:fs";
        const data = JSON.parse(readFileSync(0, "utf8"));
        process.stdout.write(JSON.stringify({expression}));
    """
    done = subprocess.run(
        [node(), "--input-type=module", "--eval", program],
        input=json.dumps(data),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
