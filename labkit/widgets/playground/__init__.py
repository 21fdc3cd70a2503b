"""Playground: a prompt of one's own, decoded live."""

from __future__ import annotations

import json
import threading
from typing import Any

import anywidget
import traitlets

from labkit.widgets.base import script, style
from labkit.widgets.page import traits_of
from labkit.widgets.risk_matrix import RiskMatrix
from labkit.widgets.token_stepper import TokenStepper

VIEWS = (TokenStepper, RiskMatrix)
"""The widgets whose views the Playground shows inside its own."""


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
        self._player = decoder.player()
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

        def tell(part: Any, kind: str = "part") -> None:
            self.send({"id": name, kind: part})

        with self._one:
            try:
                question = message["ask"], message["args"]
                tell(self._player.ask(*question, tell, lambda: name in self._stopped), "done")
            except Exception as error:  # whatever goes wrong is shown in the view
                tell(str(error) or type(error).__name__, "error")
        self._stopped.discard(name)


def views_json() -> str:
    """Return the traits that each view inside the Playground starts with, as JSON."""
    return json.dumps({kind.__name__: traits_of(kind("")) | {"problem": ""} for kind in VIEWS})
