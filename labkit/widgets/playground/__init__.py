"""Playground: a prompt of one's own, decoded live."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, Protocol

import anywidget
import traitlets

from labkit.widgets.base import script, style
from labkit.widgets.page import traits_of
from labkit.widgets.risk_matrix import RiskMatrix
from labkit.widgets.token_stepper import TokenStepper

VIEWS = (TokenStepper, RiskMatrix)
"""The widgets whose views the Playground shows inside its own."""


class Player(Protocol):
    """What answers a Playground's questions; `Decoder.player` makes one."""

    def ask(
        self,
        question: str,
        args: dict[str, Any],
        tell: Callable[[Any], None],
        stopped: Callable[[], bool],
    ) -> Any:
        """Answer ``question``; ``tell`` each part as it is known, end early once ``stopped()``."""


class Playground(anywidget.AnyWidget):
    """A prompt of one's own: decoded with drafts, drafted by hand, and decided by Bayes risk.

    ``decoder`` is a `labkit.Decoder`; the kernel computes. `labkit gallery` writes the same view
    as a page where the browser computes. ``state`` holds the reader's settings, as the address of
    the page does: ``Playground(decoder, state="prompt=Hello&temperature=0.8")``.
    """

    _esm = script("playground")
    _css = style("playground", *(f"{name}/style.css" for name in ("token_stepper", "risk_matrix")))

    state = traitlets.Unicode("").tag(sync=True)
    views = traitlets.Unicode("{}").tag(sync=True)

    def __init__(self, decoder: Any, **state: Any) -> None:
        super().__init__(views=views_json(), **state)
        self._player: Player = decoder.player()
        self._stopped: set[str] = set()
        self._one = threading.Lock()
        self.on_msg(self._hear)

    def _hear(self, _widget: object, message: dict[str, Any], _buffers: object) -> None:
        """Take a message of the view: a question, or the wish to stop one."""
        if "stop" in message:
            self._stopped.add(message["stop"])
        else:  # in a thread, so that a stop can be heard while it is answered
            threading.Thread(target=self._answer, args=(message,), daemon=True).start()

    def _answer(self, message: dict[str, Any]) -> None:
        name = message["id"]
        with self._one:
            try:
                done = self._player.ask(
                    message["ask"],
                    message["args"],
                    lambda part: self.send({"id": name, "part": part}),
                    lambda: name in self._stopped,
                )
                self.send({"id": name, "done": done})
            except Exception as error:  # whatever goes wrong is shown in the view
                self.send({"id": name, "error": str(error) or type(error).__name__})
        self._stopped.discard(name)


def views_json() -> str:
    """Return the traits that each view inside the Playground starts with, as JSON."""
    return json.dumps({kind.__name__: traits_of(kind("")) | {"problem": ""} for kind in VIEWS})
