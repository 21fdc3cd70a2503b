"""Models by name: finding, fetching, checking and reading them.

`load` takes ``real`` (fetched once, see `labkit.models.smollm2`), a model shipped in
``data/models`` such as ``tiny``, a folder, or the name of a model on a hub.
"""

from labkit.models.language_model import LanguageModel, load, model_folder, shipped_names
from labkit.models.smollm2 import check_real, fetch_real
from labkit.models.store import check_weights

__all__ = [
    "LanguageModel",
    "check_real",
    "check_weights",
    "fetch_real",
    "load",
    "model_folder",
    "shipped_names",
]
