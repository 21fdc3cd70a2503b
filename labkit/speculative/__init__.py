"""Speculative decoding: a speculator drafts, the base model checks, the output stays the same."""

from labkit.facade import public_names

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "labkit.speculative.calibrate": "TOKENS UNCALIBRATED_NODES own_texts summary",
        "labkit.speculative.checkpoint": "load_heads",
        "labkit.speculative.decoder": "heads_folder",
        "labkit.speculative.drafters.mlp": "MLPDrafter",
        "labkit.speculative.generate": "prefill",
        "labkit.speculative.theory": "Acceptance Roofline chain_speedup tree_study",
        "labkit.speculative.tree": "ROOT Draft chain",
    },
)
