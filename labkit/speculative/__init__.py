"""Speculative decoding: a speculator drafts, the base model checks, the output stays the same."""
