"""LossCurves: the loss of every head through both phases, live while training or afterwards."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import traitlets

from labkit import plots
from labkit.records import LossLog, RecordError
from labkit.widgets.base import RecordWidget, Table, script, style

PATIENCE = 600.0
"""Seconds without news after which a log is no longer followed."""


class LossCurves(RecordWidget):
    """One training run's losses and acceptance, or two runs against each other.

    Takes a `LossLog`, its JSON, or a path (``.jsonl``: a log as training writes it). `follow` keeps
    up with a training that is under way. Traits to read or to set:

    * ``span``: how many steps the smoothed curves average over (0: a fiftieth of the run);
    * ``raw``: the raw losses behind them; ``log_scale``: the losses' axis; ``skip_start``: leave
      out the steep first twentieth of a run;
    * ``along``: ``step``, ``tokens`` (positions seen) or ``seconds``;
    * ``at``: the read-out's place on that axis (-1: the end of the run);
    * ``live``: what `follow` is doing, in words.
    """

    READS: ClassVar = LossLog
    MOST: ClassVar = 2
    _esm = script("loss_curves")
    _css = style("loss_curves", "shared/chart.css")

    span = traitlets.Int(0, min=0).tag(sync=True)
    raw = traitlets.Bool(True).tag(sync=True)
    log_scale = traitlets.Bool(False).tag(sync=True)
    skip_start = traitlets.Bool(False).tag(sync=True)
    along = traitlets.Enum(("step", "tokens", "seconds"), "step").tag(sync=True)
    at = traitlets.Float(-1).tag(sync=True)
    live = traitlets.Unicode("").tag(sync=True)

    _stop = threading.Event()  # each `follow` makes its own
    _follower: threading.Thread | None = None

    def follow(self, path: str | os.PathLike[str], every: float = 1.0) -> LossCurves:
        """Show the log at ``path`` as it grows, in a thread of its own.

        The log need not be there yet. Logs that the widget already shows stay for comparison, as
        far as there is room. Following stops after `PATIENCE` seconds without news, on `stop`, or
        when the widget is closed. ``every`` is the pause between two reads in seconds; it grows
        where a read takes long.

        Raises `RecordError` for a pause that is not positive.
        """
        if not every > 0:
            raise RecordError(f"The log is read every {every} s; the pause must be positive.")
        self.stop()
        path = Path(path)
        others = self.records[: self.MOST - 1]
        self.records = (_empty(path.stem), *others)
        self.live = f"waiting for {path.name}"
        self._stop = threading.Event()
        self._follower = threading.Thread(
            target=self._watch,
            args=(path, others, every, self._stop),
            name=f"LossCurves following {path.name}",
            daemon=True,
        )
        self._follower.start()
        return self

    def stop(self) -> None:
        """Stop following; what has been read stays on show."""
        self._stop.set()
        if self._follower is not None and self._follower is not threading.current_thread():
            self._follower.join()
        self._follower = None

    def close(self) -> None:
        """Stop following and take the widget off the page."""
        self.stop()
        super().close()

    def _watch(
        self, path: Path, others: tuple[LossLog, ...], every: float, stop: threading.Event
    ) -> None:
        """Read the file again and again until there is a reason to stop; say which in ``live``."""
        seen: tuple[int, int] | None = None
        news = time.monotonic()
        cost = 0.0
        while True:
            began = time.monotonic()
            state = _stamp(path)
            if state is not None and state != seen:
                try:
                    self.records = (LossLog.follow(path), *others)
                    self.live = "following"
                except RecordError as error:
                    self.live = str(error)
                seen, news = state, time.monotonic()
                cost = news - began
            if time.monotonic() - news > PATIENCE:
                self.live = f"no news for {PATIENCE:g} s"
                return
            if stop.wait(max(every, 10 * cost)):
                self.live = "stopped"
                return

    def _take(self, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the logs; without any, an empty run that `follow` may fill."""
        return super()._take(tuple(map(_opened, given)) or (_empty("no run yet"),))

    def figure(self) -> Any:
        """Return a figure of the curves."""
        return plots.plot_loss(*self.records, span=self.span or None)

    def table(self) -> Table:
        """Return for each run and head the last loss, validation loss and acceptance."""
        rows = []
        for log in self.records:
            last, look = log.points[-1:], log.validation[-1:]  # one or none of each
            ends = (last and last[0].loss, look and look[0].loss, look and look[0].accept)
            for head in range(log.heads):
                shown = (f"{values[head]:.3f}" if values else "–" for values in ends)
                rows.append((log.name, head + 1, *shown))
        return ("run", "head", "loss", "validation loss", "accepted"), rows

    def summary(self) -> str:
        """Say in one sentence where the runs ended."""
        said = []
        for log in self.records:
            losses = ", ".join(f"{loss:.3f}" for point in log.points[-1:] for loss in point.loss)
            last = f"last losses {losses}" if losses else "no loss yet"
            said.append(f"{log.name}: {len(log.points)} steps, {last}")
        return "; ".join(said)


def _empty(name: str) -> LossLog:
    return LossLog(name=name, base="", heads=1)


def _opened(given: Any) -> Any:
    """Return the log in a file that training writes; anything else as it is."""
    if isinstance(given, str | os.PathLike) and str(given).endswith(".jsonl"):
        return LossLog.follow(given)
    return given


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return values that change with a file's content, or None while it has none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if status.st_size else None
