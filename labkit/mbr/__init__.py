"""Minimum Bayes risk decoding: draw samples, score every pair, take the least expected loss."""

from labkit.facade import public_names

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "labkit.mbr": "approximate utilities",
        "labkit.mbr.decide": "choose decode",
        "labkit.mbr.evaluate": "compare_on_edits corpus paired_bootstrap read_edits signature",
        "labkit.mbr.family": "Member choose_as decoders most_frequent most_probable oracle "
        "same_answer",
        "labkit.mbr.draws": "Draws draw",
        "labkit.mbr.search": "Beam beam greedy",
        "labkit.mbr.sets": "annotate best_set best_singles compare_sets decide_in_cluster "
        "diverse_set set_risk",
        "labkit.mbr.pairs": "Case draw_cases first_of read_pairs",
        "labkit.mbr.bench": "compare_with_peer",
        "labkit.mbr.uncertainty": "answered compare_areas confidences decompose error_of judge "
        "risk_coverage threshold_for",
        "labkit.mbr.utilities.lexical": "tokens",
        "labkit.mbr.utilities.learned": "cosine hidden_states of_model",
        "labkit.mbr.weights": "distinct pool weigh",
    },
)
