"""Models by name: found, fetched, checked and read."""
