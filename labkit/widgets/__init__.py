"""Six views of records, and the Playground; each in a folder of its own, imported when named."""

from labkit.facade import public_names

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "labkit.widgets.loss_curves": "LossCurves",
        "labkit.widgets.playground": "Playground",
        "labkit.widgets.race": "Race",
        "labkit.widgets.risk_matrix": "RiskMatrix",
        "labkit.widgets.serving_curves": "ServingCurves",
        "labkit.widgets.token_stepper": "TokenStepper",
        "labkit.widgets.tree_lab": "TreeLab",
    },
)
