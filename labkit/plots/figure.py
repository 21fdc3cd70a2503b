"""What every figure of the lab shares: colours, paper, and a way onto the page."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

HUES = ("#0a47bb", "#b05400", "#1b7d65", "#7e317c", "#806500", "#1b779f", "#a02c4a", "#656c76")
"""One colour a head or method, the widgets' own on a light page: the first four as far apart under
each colour blindness as colours can be that are dark enough to be read as text on white."""

MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""One mark a head or method, so that nothing hangs on colour alone."""

INK, FAINT, WINNER = "#1c2330", "#7a8292", "#d55e00"

LOSS_RAMP = LinearSegmentedColormap.from_list(
    "labkit_loss", ("#1d1a4d", "#26508f", "#3d87a8", "#83b9ad", "#d5dcb6", "#fdf8e4")
)
"""Loss 0 (alike) is ink, loss 1 (unlike) is paper; lightness rises all the way."""

WORDS = ("axes.labelcolor", "text.color", "xtick.labelcolor", "ytick.labelcolor")
STYLE: Any = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), FAINT),
    **dict.fromkeys(WORDS, INK),
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7ec",
    "grid.linewidth": 0.8,
    "text.parse_math": False,
    "legend.frameon": False,
    "figure.facecolor": "white",
}

DARK: Any = {
    **dict.fromkeys(WORDS, "#e8ebef"),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "#131416"),
    "grid.color": "#2f353d",
}
"""What differs on a dark page."""

DARK_HUES = ("#6cb2f5", "#f0a35e", "#5cc7a8", "#d08fcd", "#d3b64a", "#6fc4dd", "#ee8aa4", "#aab4c0")
"""`HUES` for a dark page, in the same order."""


class Picture(Figure):
    """A matplotlib figure that no global state holds on to and that a notebook shows once."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return the picture at twice the dots of its place on the page, and that place's size."""
        width, height = (round(inches * 100) for inches in self.get_size_inches())
        return self.png(dpi=200), {"width": width, "height": height}

    def png(self, dpi: float = 144) -> bytes:
        """Return the picture as a PNG file's bytes."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=dpi)
        return buffer.getvalue()


def picture(width: float, height: float) -> Picture:
    """Make an empty figure of ``width`` x ``height`` inches that lays itself out."""
    return Picture(figsize=(width, height), layout="constrained")


styled = matplotlib.rc_context(STYLE)
"""A decorator for functions that draw: what they make looks like the lab's."""
