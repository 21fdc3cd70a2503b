"""The model that the course runs on, and a run of its notebooks without a browser."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError
from labkit.paths import carried


def base_name() -> str:
    """Return the course's base model: ``LABKIT_BASE`` if it is set, else ``real``.

    `labkit.load` lists what it may be.
    """
    return os.environ.get("LABKIT_BASE") or "real"


WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class NotebookRun:
    """A notebook's run: its time, and one line for each error or warning."""

    path: Path
    seconds: float
    complaints: tuple[str, ...]
    notebook: Any


def notebooks_dir() -> Path:
    """Return the folder of the course's notebooks; raise `LabkitError` if there is none."""
    folder = carried("notebooks")
    if not folder.is_dir():
        raise LabkitError(f"There is no folder {folder}: install labkit anew, or from a checkout.")
    return folder


def course() -> list[Path]:
    """Return the course's notebooks in reading order."""
    return sorted(notebooks_dir().glob("[0-9][0-9]_*.ipynb"))


def run(path: Path, base: str) -> NotebookRun:
    """Run a notebook on the model called ``base`` in an empty folder, so nothing is left beside it.

    The run ends at the first cell that raises. Raises `LabkitError` if ``path`` is no notebook.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:
        raise LabkitError(f"{path} cannot be read as a notebook: {error}.") from None
    began = time.perf_counter()
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=900,  # seconds a cell
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            store_widget_state=False,
            record_timing=False,
        )
        try:
            client.execute(env={**os.environ, "LABKIT_BASE": base})
        except CellExecutionError:
            pass  # the cell's own output says it
        except (CellTimeoutError, DeadKernelError) as error:
            broken.append(" ".join(str(error).split())[:300])
    found = (*broken, *complaints(notebook))
    return NotebookRun(path, time.perf_counter() - began, found, notebook)


def complaints(notebook: Any) -> Iterator[str]:
    """Yield one line for each error or warning that an executed notebook shows."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{cell.id}: {output.ename}: {output.evalue}"
            elif output.output_type == "stream" and output.name == "stderr":
                yield f"{cell.id}: on standard error: {' '.join(output.text.split())[:300]}"
            elif WIDGET in output.get("data", {}) and "image/png" not in output.data:
                yield f"{cell.id}: {output.data.get('text/plain', 'a widget without a picture')}"
