"""Training: the text, the tiny base model, and speculative heads in two phases.

`labkit.training.train.train_all` goes from a recipe to trained heads, `generate` makes phase 2's
text alone, `plan_training` says what a recipe would cost elsewhere, and `evaluate_heads` what heads
gain.
"""

from labkit.facade import public_names

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "labkit.training.batches": "cut_runs from_rows learning_rate_at make_batch",
        "labkit.training.evaluate": "count_steps evaluate_heads greedy_answers",
        "labkit.training.features": "head_weight last_hidden",
        "labkit.training.plan": "plan_training",
        "labkit.training.recipe": "Recipe",
        "labkit.training.text": "read_documents some_text",
        "labkit.training.train": "train_all",
    },
)
