"""One matplotlib figure per record, and the course's own; nothing here opens a window."""

from labkit.facade import public_names

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "labkit.plots.decoding": "plot_race plot_trace plot_tree",
        "labkit.plots.lesson": "plot_against plot_lines plot_overlap plot_points",
        "labkit.plots.risk": "plot_beyond plot_coverage plot_risk",
        "labkit.plots.speed": "plot_serving plot_storage plot_study",
        "labkit.plots.training": "plot_ablations plot_loss plot_phases",
    },
)
