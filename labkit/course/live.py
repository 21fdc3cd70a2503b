"""Training inside a notebook, with live curves; it can be stopped and continued."""

from __future__ import annotations

import _thread
import contextlib
import io
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.records import LossLog, RecordError, write_whole

if TYPE_CHECKING:
    from labkit.training.recipe import Recipe


def train_live(
    recipe: Recipe, folder: str | Path, *, go_on: bool = False, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train by ``recipe`` with live curves; return what `labkit.training.train.train_all` does.

    An earlier training in ``folder`` is deleted first, unless ``go_on``. After ``stop_after`` steps
    it is interrupted, as by the stop button, and returns None. Raises KeyboardInterrupt if the
    reader stops it; what was done is kept in both cases.
    """
    from IPython.display import display

    from labkit.models.store import LOCK, locked
    from labkit.training.ablations import as_toml
    from labkit.training.loop import LOG_NAME
    from labkit.training.train import train_all
    from labkit.widgets import LossCurves

    folder = Path(folder)
    file, log = folder / "recipe.toml", folder / LOG_NAME
    if file.exists() and not go_on:
        with locked(folder):  # another process may be training there
            for old in folder.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
                elif old.name != LOCK:
                    old.unlink()
    write_whole(file, as_toml(recipe))
    curves = LossCurves()
    shown = display(curves, display_id=True)
    curves.follow(log, every=0.5)
    ending = "training has ended"
    try:
        # The curves say how far it is; a progress bar would say it again.
        with contextlib.redirect_stderr(io.StringIO()), _interrupted(log, stop_after):
            return train_all(file, folder)
    except KeyboardInterrupt:
        ending = "stopped; what was done is kept"
        if stop_after is None:
            raise
        return None
    finally:
        curves.stop()
        with contextlib.suppress(RecordError):  # stopped before there was a log
            curves.record = LossLog.follow(log)
        curves.live = ending
        if shown:  # so that a page without a kernel has the last state, not the first
            shown.update(curves)


@contextlib.contextmanager
def _interrupted(log: Path, after: int | None) -> Iterator[None]:
    """Interrupt the main thread once ``log`` has ``after`` steps."""
    if after is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            with contextlib.suppress(RecordError):
                points = LossLog.follow(log).points
                if points and points[-1].step >= after:
                    _thread.interrupt_main()
                    return

    watcher = threading.Thread(target=watch, name="stopping a training", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
