"""Colours of both themes: readable as text, told apart by any eye."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from labkit.plots.decoding import BASE
from labkit.plots.figure import HUES
from labkit.widgets.base import HERE

STYLE = (HERE / "shared" / "style.css").read_text(encoding="utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--lk-([\w-]+):\s*(#[0-9a-f]{6});", block))
    for block in re.findall(r"(?m)^\.labkit(?:\[data-theme=\"dark\"\])? \{(.*?)^\}", STYLE, re.S)[
        :2
    ]
)
SERIES = ("c1", "c2", "c3", "c4", "base")
"""What stands side by side in nearly every view: four heads and the base model."""

SIGHT = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
"""How linear RGB is seen, at full severity: Machado, Oliveira and Fernandes (2009), table 1."""


def linear(color: str) -> np.ndarray:
    value = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2."""
    low, high = sorted(float(linear(color) @ [0.2126, 0.7152, 0.0722]) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Lightness and two hues in which equal distances look equal (Ottosson, 2020)."""
    cones = np.cbrt(
        np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                  [0.2119034982, 0.6806995451, 0.1073969566],
                  [0.0883024619, 0.2817188376, 0.6299787005]]) @ np.clip(rgb, 0, 1)
    )  # fmt: skip
    return (
        np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                  [1.9779984951, -2.4285922050, 0.4505937099],
                  [0.0259040371, 0.7827717662, -0.8086757660]]) @ cones
    )  # fmt: skip


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_colour_that_words_may_have_is_readable_on_every_ground(theme):
    words = ("ink", "ink-2", "muted", "accent", "accept", "reject", "drafter", "base")
    for name in (*words, *(f"c{place}" for place in range(1, 9))):
        for ground in ("surface", "sunken"):
            assert contrast(theme[name], theme[ground]) >= 4.5, (name, ground)
    assert contrast(theme["edge"], theme["surface"]) >= 3


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_heads_and_base_model_are_told_apart_by_every_eye(theme, sight):
    seen = {name: oklab(np.array(SIGHT[sight]) @ linear(theme[name])) for name in SERIES}
    for one, other in itertools.combinations(SERIES, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= 0.065, (one, other)


def test_pictures_have_the_colours_of_the_light_theme():
    assert tuple(LIGHT[f"c{place}"] for place in range(1, 9)) == HUES
    assert LIGHT["base"] == BASE
