"""LossCurves: the loss of every head through both phases, live while training or afterwards."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets

from labkit.records import LossLog, LossPoint, RecordError, ValidationPoint
from labkit.widgets.base import RecordWidget, script, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

    def __init__(self, *logs: Any, **state: Any) -> None:
        self._stop = threading.Event()
        self._follower: threading.Thread | None = None
        super().__init__(*logs, **state)

    def fit_state(self) -> None:
        """Leave the switches as they are: a longer log of the same run must not move them."""

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
        self.records = (LossLog(name=path.stem, base="", heads=1), *others)
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
        follower = self._follower
        if follower is not None and follower is not threading.current_thread():
            follower.join()
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

    def _take(self, given: tuple[Any, ...]) -> dict[str, str]:
        """Store the logs; without any, show an empty run that `follow` may fill."""
        try:
            logs = tuple(_opened(each) for each in given) or (
                LossLog(name="no run yet", base="", heads=1),
            )
        except RecordError as error:
            self._records = ()
            return {"problem": str(error), "records_json": "[]"}
        return super()._take(logs)

    def figure(self) -> Figure:
        """Return a figure of the curves."""
        from labkit.plots import plot_loss

        log, *others = self.records
        return plot_loss(log, others[0] if others else None, span=self.span or None)

    def table(self) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
        """Return for each run and head the last loss, validation loss and acceptance."""
        rows = []
        for log in self.records:
            last = log.points[-1] if log.points else None
            look = log.validation[-1] if log.validation else None
            rows += [(log.name, head + 1, *_ends(last, look, head)) for head in range(log.heads)]
        return ("run", "head", "loss", "validation loss", "accepted"), rows

    def summary(self) -> str:
        """Say in one sentence where the runs ended."""
        return "; ".join(
            f"{log.name}: {len(log.points)} steps, "
            + (
                "last losses " + ", ".join(f"{loss:.3f}" for loss in log.points[-1].loss)
                if log.points
                else "no loss yet"
            )
            for log in self.records
        )


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


def _ends(last: LossPoint | None, look: ValidationPoint | None, head: int) -> tuple[str, str, str]:
    return (
        f"{last.loss[head]:.3f}" if last else "–",
        f"{look.loss[head]:.3f}" if look else "–",
        f"{look.accept[head]:.3f}" if look else "–",
    )
