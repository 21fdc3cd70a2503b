"""TreeLab: build a candidate tree and see what it gains and costs."""

from __future__ import annotations

from typing import Any

import traitlets

from labkit import plots
from labkit.records import ROOT, TreeStudy
from labkit.widgets.base import RecordWidget, Table, counted, script, style, within


class TreeLab(RecordWidget):
    """A candidate tree built by hand or by the optimiser, its gain, its cost, its mask.

    ``nodes`` is the tree, a list of paths (the ranks on the way, 0 a head's top choice), parents
    included; it starts as the tree with the highest predicted speedup. ``selected`` is the index
    of the chosen node in ``nodes``, -1 the last committed token.

    >>> from labkit.records import VerifyCost
    >>> study = TreeStudy(name="mlp", base="tiny", accept=((0.5, 0.2), (0.5,)), places=1000,
    ...                   verify=(VerifyCost(nodes=0, ratio=1), VerifyCost(nodes=4, ratio=1.2)),
    ...                   draft_head=(0.1, 0.1), draft_node=0.0, token_s=0.02)
    >>> tree = TreeLab(study)
    >>> tree.nodes = [[0], [0, 0]]
    >>> tree.tokens_per_step
    1.75
    """

    READS = TreeStudy
    _esm = script("tree_lab")
    _css = style("tree_lab")

    nodes = traitlets.List(traitlets.List(traitlets.Int())).tag(sync=True)
    selected = traitlets.Int(ROOT).tag(sync=True)

    def fit_state(self) -> None:
        """Show a new study with its fastest tree."""
        self.selected = ROOT
        self.nodes = [list(path) for path in self.record.best_tree()] if self.record else []

    @property
    def tokens_per_step(self) -> float:
        """Expected tokens per step of the tree on show."""
        return self.record.tokens_per_step(self.nodes)

    @property
    def speedup(self) -> float:
        """Predicted speedup of the tree on show."""
        return self.record.speedup(self.nodes)

    @traitlets.validate("nodes")
    def _is_tree(self, proposal: dict[str, Any]) -> list[list[int]]:
        paths = sorted({tuple(path) for path in proposal["value"]}, key=lambda p: (len(p), p))
        if not self.record:
            return []
        accept, most = self.record.accept, self.record.most_nodes
        if len(paths) > most:
            raise traitlets.TraitError(
                f"A tree has at most {most} nodes here, not {len(paths)}: more were not measured."
            )
        for path in paths:
            ranks = zip(path, accept, strict=False)
            fits = all(0 <= rank < len(shares) for rank, shares in ranks)
            if not (fits and 1 <= len(path) <= len(accept)):
                raise traitlets.TraitError(
                    f"{list(path)} is no path: it needs 1 to {len(accept)} ranks, each below "
                    f"{', '.join(str(len(shares)) for shares in accept)}."
                )
            if len(path) > 1 and path[:-1] not in paths:
                raise traitlets.TraitError(
                    f"The tree has {list(path)} but not its parent {list(path[:-1])}."
                )
        return [list(path) for path in paths]

    @traitlets.observe("nodes")
    def _keep_selected(self, _change: object) -> None:
        if self.selected >= len(self.nodes):
            self.selected = ROOT

    @traitlets.validate("selected")
    def _node_exists(self, proposal: dict[str, Any]) -> int:
        return within("selected", proposal["value"], ROOT, len(self.nodes) - 1)

    def figure(self) -> Any:
        """Return a figure of the tree and of what the best tree of each size would give."""
        return plots.plot_tree(self.record, [tuple(path) for path in self.nodes])

    def table(self) -> Table:
        """Return one row per node: its place, and what it adds."""
        study, rows = self.record, []
        for path in self.nodes:
            name, head, rank = "·".join(str(rank + 1) for rank in path), len(path), path[-1] + 1
            accept, gain = study.accept[head - 1][rank - 1], study.gain(tuple(path))
            rows.append((name, head, rank, f"{accept:.2f}", f"{gain:.3f}"))
        return ("node", "head", "rank", "accepted", "whole path"), rows

    def summary(self) -> str:
        """Say what the tree gains and costs."""
        return (
            f"A candidate tree of {counted(len(self.nodes), 'node')} "
            f"for {self.record.name} on {self.record.base}: "
            f"{self.tokens_per_step:.2f} tokens per step expected, "
            f"{self.record.cost(self.nodes):.2f} plain steps of time, "
            f"speedup {self.speedup:.2f} predicted."
        )
