"""Playground: a prompt of one's own, decoded live; also as a page that computes by itself."""

from __future__ import annotations

import json
import threading
import zlib
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from safetensors.numpy import load_file

from labkit.widgets.base import (
    HERE,
    PAGE_STYLE,
    bundle,
    document,
    inline,
    inside,
    script,
    style,
    traits_of,
)
from labkit.widgets.risk_matrix import RiskMatrix
from labkit.widgets.token_stepper import TokenStepper

KEPT_OUT = np.array([0, 13, 60])
"""Seven-bit values that HTML does not keep as they are: NUL, CR and "<"."""
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


def page(model: Path, heads: Path) -> str:
    """Return the page for a Llama-shaped ``model`` and its ``heads``, two folders on disk.

    The page loads nothing. Weights are stored in float16, as the lab's own small models are.
    """
    packed, count = _packed(model, heads)
    worker = bundle(HERE / "playground" / "worker.js")
    start = (HERE / "playground" / "page.js").read_text(encoding="utf-8")
    inner = f"""<main>
<nav aria-label="Gallery"><a href="../index.html">All widgets</a></nav>
<h1>Playground</h1>
<p>Type a prompt and watch a small language model decode it, here in this page: no kernel, no
server, nothing loaded. The model has {count / 1e6:.1f} million parameters; it writes recognisable,
if empty-headed, English.</p>
<div id="playground"></div>
</main>
<script type="text/plain" id="labkit-weights" data-size="{len(packed)}">{as_text(packed)}</script>
<script type="text/plain" id="labkit-worker">"use strict";
{inside(worker)}</script>
<script type="module">
{inside(Playground._esm)}
const VIEWS = {inline(views_json())};
{inside(start)}
</script>"""
    return document("Playground · labkit", PAGE_STYLE + Playground._css, inner)


def as_text(data: bytes) -> str:
    """Return bytes as text that an HTML file keeps, seven bits a byte; see weights.js.

    >>> len(as_text(bytes(range(200, 256))).encode())
    64
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    bits = np.concatenate([bits, np.zeros(-len(bits) % 7 + 7, np.uint8)])
    codes = np.packbits(bits.reshape(-1, 7), axis=1)[:, 0].astype(np.uint32) >> 1
    joined = np.zeros(len(codes), bool)  # with the value before
    for place in np.flatnonzero(np.isin(codes[:-1], KEPT_OUT)).tolist():
        if not joined[place]:
            joined[place + 1] = True
    first = np.flatnonzero(joined) - 1
    codes[first] = 0x100 + np.searchsorted(KEPT_OUT, codes[first]) * 128 + codes[first + 1]
    kept = codes[~joined]
    # The last zero of the padding may be alone, where NUL would be: it carries nothing.
    return (kept[:-1] if kept[-1] == 0 else kept).astype("<u4").tobytes().decode("utf-32-le")


def _packed(model: Path, heads: Path) -> tuple[bytes, int]:
    """Return what the page carries, deflated (see weights.js), and the model's parameters."""
    weights = load_file(model / "model.safetensors")
    parameters = sum(value.size for value in weights.values())
    weights |= load_file(heads / "model.safetensors")
    draft_ids = weights.pop("draft_ids", None)
    tensors, parts, at = {}, [], 0
    for name, value in weights.items():
        tensors[name] = (at, value.size)
        parts.append(value.astype(np.float16).ravel())
        at += value.size
    halves = np.concatenate(parts).astype("<f2").view(np.uint8).reshape(-1, 2)
    config, tokenizer = _json(model / "config.json"), _json(model / "tokenizer.json")
    if draft_ids is not None and np.array_equal(draft_ids, np.arange(config["vocab_size"])):
        draft_ids = None  # every token can be drafted
    vocabulary = tokenizer["model"]["vocab"]
    header = {
        "base": model.name,
        "config": config,
        "heads": _json(heads / "config.json"),
        "draft_ids": None if draft_ids is None else draft_ids.tolist(),
        "tokenizer": {
            "vocabulary": sorted(vocabulary, key=vocabulary.__getitem__),
            "merges": [" ".join(pair) for pair in tokenizer["model"]["merges"]],
            "special": {one["content"]: one["id"] for one in tokenizer["added_tokens"]},
        },
        "ends": [config["eos_token_id"]],
        "tensors": tensors,
        "count": at,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    whole = len(text).to_bytes(4, "little") + text + halves[:, 1].tobytes() + halves[:, 0].tobytes()
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeezer.compress(whole) + squeezer.flush(), parameters


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
