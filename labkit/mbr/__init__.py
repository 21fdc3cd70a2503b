"""Minimum Bayes risk decoding: draw samples, score every pair, take the least expected loss."""

from labkit.facade import public_names

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "labkit.mbr": "approximate utilities",
        "labkit.mbr.baselines": "most_frequent most_probable oracle",
        "labkit.mbr.decide": "choose decode",
        "labkit.mbr.evaluate": "corpus paired_bootstrap signature",
        "labkit.mbr.draws": "Draws draw",
        "labkit.mbr.search": "Beam beam greedy",
        "labkit.mbr.study": "Case first_of",
        "labkit.mbr.pairs": "read_pairs",
        "labkit.mbr.utilities.bleu": "tokens",
    },
)
