"""Train by a recipe in a process of its own, on made-up text: ``run_small.py RECIPE OUT [LINES]``.

With LINES it kills itself, as SIGKILL does, once the log has that many lines.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import torch

from labkit.errors import LabkitError
from labkit.training import loop, prompts, train
from labkit.training.train import train_all
from tests.training.conftest import count_up, documents


def kill_after(lines: int) -> None:
    """Kill this process when the log has ``lines`` lines; on Windows SIGTERM is as abrupt."""
    append = loop.Trainer._append

    def counted(trainer, point):
        append(trainer, point)
        if (trainer.out / loop.LOG_NAME).read_bytes().count(b"\n") >= lines:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    loop.Trainer._append = counted


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 3:
        kill_after(int(sys.argv[3]))
    prompts.read_documents = train.read_documents = lambda _names: documents()
    try:
        result = train_all(sys.argv[1], sys.argv[2], write=count_up)
    except LabkitError as error:
        sys.exit(f"refused: {error}")
    print(json.dumps(result))
