"""labkit: how language models decode, to be watched step by step."""

from labkit.facade import public_names
from labkit.threads import settle_waiting

settle_waiting()  # before anything loads torch, which reads these settings once

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "labkit.course": "base_name compare predict predictions",
        "labkit.devices": "clock",
        "labkit.errors": "LabkitError",
        "labkit.kernels": "engine_for",
        "labkit.kernels.engine": "Rows",
        "labkit.mbr.conditional": "conditional",
        "labkit.models": "LanguageModel load",
        "labkit.paths": "data_dir",
        "labkit.questions": "read_questions",
        "labkit.records": "LossLog RiskTable ServingLog Trace",
        "labkit.sampling": "Sampling",
        "labkit.speculative.calibrate": "calibrate",
        "labkit.speculative.decoder": "Decoder",
        "labkit.speculative.generate": "generate",
        "labkit.speculative.samples": "draw_samples",
    },
)
