"""One matplotlib figure per record, and the course's own; nothing here opens a window."""

from labkit.facade import public_names

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "labkit.plots.ablations": "plot_ablations",
        "labkit.plots.lesson": "plot_against plot_lines plot_overlap plot_points",
        "labkit.plots.loss": "plot_loss plot_phases",
        "labkit.plots.risk": "plot_beyond plot_coverage plot_risk",
        "labkit.plots.serving": "plot_serving",
        "labkit.plots.storage": "plot_storage plot_study",
        "labkit.plots.trace": "plot_race plot_trace",
        "labkit.plots.tree": "plot_tree",
    },
)
