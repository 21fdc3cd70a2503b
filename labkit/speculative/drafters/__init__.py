"""Drafters, one file each, behind the one interface of `labkit.speculative.drafters.base`."""
