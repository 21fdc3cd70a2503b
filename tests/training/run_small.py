"""Train by a recipe in a process of its own: ``run_small.py RECIPE OUT``, on made-up text."""

from __future__ import annotations

import json
import sys

import torch

from labkit.training import materials
from labkit.training.train import train_all
from tests.training.conftest import count_up, documents

if __name__ == "__main__":
    torch.set_num_threads(1)
    materials.read_documents = lambda _names: documents()
    result = train_all(sys.argv[1], sys.argv[2], write=count_up)
    print(json.dumps(result))
