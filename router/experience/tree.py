"""Gaussians on a tree: what one language knows, told to the others through their families.

Belief propagation (Pearl 1988) for the hierarchical normal model (Lindley & Smith
1972): a node's value is its parent's plus a Gaussian step whose variance is its depth's.
It is exact, and a question or an update costs the depth of the tree, not its size.

All is said in *evidence*, natural parameters that add up: `(arms, 2 + features)`, a
precision and, times that precision, the mean reward and the mean features of the answers
behind it. The features travel along because a mean reward means something only beside
them: what is believed of reward - slopes * features follows from the same evidence
whatever the slopes are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from router.arrays import grown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.arrays import FloatArray, IntArray

ROOT = 0

UNKNOWN = -1
"""Stands for a node that is not in the tree."""


class Tree:
    """Values at the nodes of a tree, one an arm; evidence comes in at the leaves.

    Attributes:
        steps: variance of a node's step from its parent, by the node's depth, above 0;
            the first is that of the root from 0.
        evidence: `(nodes, arms, 2 + features)`, what came in at a node or from below it;
            rows and columns that nothing is known of are zero, as the last row always is.

    Leaves of one parent that say 1 and 3, and are sure, let a third expect 2:

    >>> tree = Tree(steps=np.array([100.0, 1.0]), arms=1, features=0)
    >>> one, two, other = tree.add(ROOT), tree.add(ROOT), tree.add(ROOT)
    >>> tree.tell(np.array([one, two]), np.array([[[100.0, 100.0]], [[100.0, 300.0]]]))
    >>> (precision, weighted), = tree.believe((ROOT, other), np.arange(1))
    >>> round(float(weighted / precision), 2)
    1.99
    """

    def __init__(self, steps: FloatArray, arms: int, features: int) -> None:
        self.steps = steps
        self.parents = [ROOT]
        self.depths = [0]
        self.evidence: FloatArray = np.zeros((2, arms, 2 + features))
        self._told: FloatArray = np.zeros((2, arms, 2 + features))  # to the parent

    def add(self, parent: int) -> int:
        """A new node, of which nothing is known yet."""
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1)
        self.widen(self.evidence.shape[1])
        return len(self.parents) - 1

    def widen(self, arms: int) -> None:
        """Makes room for so many arms."""
        self.evidence = grown(self.evidence, len(self.parents) + 1, arms)
        self._told = grown(self._told, len(self.parents) + 1, arms)

    def tell(self, leaves: IntArray, evidence: FloatArray) -> None:
        """Replaces the evidence at some leaves of one parent, `(leaves, arms, 2 + features)`."""
        width = evidence.shape[1]
        self.evidence[leaves, :width] = evidence
        told = stepped(evidence, self.steps[-1])
        more = (told - self._told[leaves, :width]).sum(axis=0)
        self._told[leaves, :width] = told
        node = self.parents[int(leaves[0])]
        self.evidence[node, :width] += more
        while node != ROOT:
            told = stepped(self.evidence[node], self.steps[self.depths[node]])
            self.evidence[self.parents[node]] += told - self._told[node]
            self._told[node] = told
            node = self.parents[node]

    def retell(self) -> None:
        """Passes all evidence up again, from the leaves; to be called when `steps` has changed."""
        inner = sorted(set(self.parents), key=lambda node: -self.depths[node])
        self.evidence[inner] = 0.0
        parents, depths = np.array(self.parents), np.array(self.depths)
        for depth in range(int(depths.max()), 0, -1):
            nodes = np.flatnonzero(depths == depth)
            self._told[nodes] = stepped(self.evidence[nodes], self.steps[depth])
            np.add.at(self.evidence, parents[nodes], self._told[nodes])

    def believe(self, path: Sequence[int] | IntArray, arms: IntArray | slice) -> FloatArray:
        """What follows for these arms at the end of a path, `(arms, 2 + features)`.

        Args:
            path: nodes from the root down, `UNKNOWN` among them; or many paths of one
                depth, `(depth, paths, 1)`, for `(paths, arms, 2 + features)`.
            arms: their columns; an array where there are many paths.
        """
        belief = self.evidence[path[0], arms]
        belief = belief + self._prior(belief.shape[-2])
        for node, step in zip(path[1:], self.steps[1:], strict=False):
            # what the node has said itself must not come back to it
            belief = stepped(belief - self._told[node, arms], step)
            belief += self.evidence[node, arms]
        return belief

    def expect(self, path: Sequence[int]) -> FloatArray:
        """What all others say of the node at the end of a path, `(arms, 2 + features)`."""
        everyone = slice(self.evidence.shape[1])
        above = self.believe(path[:-1], everyone) - self._told[path[-1]]
        return stepped(above, self.steps[len(path) - 1])

    def explaining(self, slopes: FloatArray) -> Tree:
        """The same tree, of what the slopes, `(arms, features)`, leave of the rewards."""
        rest = Tree(self.steps, len(slopes), features=0)
        rest.parents, rest.depths = self.parents, self.depths
        explained = (self.evidence[..., 2:] * slopes).sum(axis=-1)
        rest.evidence = self.evidence[..., :2].copy()
        rest.evidence[..., 1] -= explained
        rest.widen(len(slopes))
        rest.retell()
        return rest

    def learn_steps(self, strength: float, turns: int) -> None:
        """Estimates the variances of the steps from all evidence, by EM.

        Dempster, Laird & Rubin (1977). For a tree without features. The prior of a
        variance is inverse gamma, around what `steps` says at first.

        Args:
            strength: how many steps the prior counts for.
            turns: turns of EM.
        """
        parents, depths = np.array(self.parents), np.array(self.depths)
        levels = [np.flatnonzero(depths == depth) for depth in range(len(self.steps))]
        expected = self.steps
        for _ in range(turns):
            beliefs = np.zeros_like(self.evidence)
            steps = np.empty_like(expected)
            for depth, nodes in enumerate(levels):
                variance = self.steps[depth]
                heard = self.evidence[nodes]
                if depth == ROOT:
                    above_mean = above_variance = np.zeros(heard.shape[:-1])  # it steps from 0
                    beliefs[nodes] = self._prior(heard.shape[1]) + heard
                else:
                    above = beliefs[parents[nodes]] - self._told[nodes]
                    above_mean, above_variance = _moments(above)
                    beliefs[nodes] = stepped(above, variance) + heard
                mean, noise = _moments(heard)
                gain = variance / (variance + noise + above_variance)
                squares = (gain * (mean - above_mean)) ** 2 + variance * (1.0 - gain)
                known = heard[..., 0] > 0.0
                total = squares[known].sum() + strength * expected[depth]
                steps[depth] = total / (known.sum() + strength)
            self.steps = steps
            self.retell()

    def _prior(self, arms: int) -> FloatArray:
        prior = np.zeros((arms, self.evidence.shape[2]))
        prior[:, 0] = 1.0 / self.steps[0]
        return prior


def stepped(evidence: FloatArray, variance: float) -> FloatArray:
    """Evidence of one value, as evidence of another that is a Gaussian step away."""
    passed: FloatArray = evidence / (1.0 + variance * evidence[..., :1])
    return passed


def _moments(evidence: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and variance, `(nodes, arms)`; 0 where nothing is known."""
    precision = evidence[..., 0]
    variance = np.divide(1.0, precision, out=np.zeros_like(precision), where=precision > 0.0)
    return evidence[..., 1] * variance, variance
