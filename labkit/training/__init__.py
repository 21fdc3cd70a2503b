"""Training: the text, the tiny base model, and speculative heads in two phases.

`labkit.training.train.train_all` goes from a recipe to trained heads, `generate` makes phase 2's
text alone, `labkit.training.plan.plan` says what a recipe would cost elsewhere, and
`labkit.training.evaluate.evaluate` what heads gain.
"""
