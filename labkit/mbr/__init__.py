"""Minimum Bayes risk decoding: draw samples, score every pair, take the least expected loss."""
