"""Compiled code that is kept between processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

KERNELS = """
import numpy as np
from numba import njit, prange
from labkit.kernels.compiled import CACHED

@njit(parallel=True, cache=True)
def doubled(x):
    out = np.empty_like(x)
    for i in prange(len(x)):
        out[i] = 2 * x[i]
    return out

@njit(cache=True)
def sum_doubled(x):
    return doubled(x).sum()
"""


def test_a_caller_of_kept_parallel_code_runs_when_it_is_read_from_the_cache(tmp_path: Path) -> None:
    (tmp_path / "kept_kernels.py").write_text(KERNELS, encoding="utf-8")
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([str(tmp_path), root])
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": paths}
    # Compiles the parallel code; compiles its caller with that from the cache; reads the caller.
    for used in ("doubled(x).sum()", "sum_doubled(x)", "sum_doubled(x)"):
        script = f"import numpy as np; from kept_kernels import *; x = np.ones(8); print({used})"
        done = subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "16.0"
