"""How likely an arm is among the k first of independent draws: Gaussian, or exponential races."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from router.arrays import FloatArray, IntArray

SMALLEST = 1e-12
"""Floor of an inclusion probability: rarer draws do not happen, a zero would still be wrong."""

_REACH = 6.0  # standard deviations from its mean beyond which a draw does not matter
_FINEST = 1e-12  # smallest sd in ranges of the means: what is finer, rounding has lost
_PANEL = 1.5  # standard deviations of the narrowest arm in reach
_FEW_PANELS = 12  # so few may all be as narrow as the narrowest needs to be

_EARLY, _LATE = 1e-5, 25.0  # expected firings before which, and after which, nothing is open
_SLOWEST = 1e-100  # rate in largest rates below which arms are not told apart
_LOG_PANEL = 1.0

_RAREST = 1e-60  # floor of P(not above), by which odds are divided
_CLOSED_FORMS = 3

_GAUSS = np.polynomial.legendre.leggauss(4)
_NODES, _WEIGHTS = 0.5 * _GAUSS[0] + 0.5, 0.5 * _GAUSS[1]
_PEAK = 1.0 / math.sqrt(2.0 * math.pi)

_TABLE_REACH = 9.0
_TABLE_STEPS = 256  # a unit; linear interpolation is then good to 5e-7
_TABLE = np.array(
    [
        0.5 * math.erfc(i / _TABLE_STEPS / math.sqrt(2.0))
        for i in range(-int(_TABLE_REACH * _TABLE_STEPS), int(_TABLE_REACH * _TABLE_STEPS) + 1)
    ]
)
_SLOPE = np.diff(_TABLE, append=_TABLE[-1])


def top_k(mean: FloatArray, sd: FloatArray, k: int, chosen: IntArray) -> FloatArray:
    """Inclusion probabilities (Horvitz & Thompson 1952) of the k largest draws.

    Draw x_j ~ N(mean_j, sd_j^2) for each arm and keep the k largest. Arm i is
    kept if fewer than k of the others lie above it:

        P(i) = integral of P(#{j != i : x_j > x} < k) dF_i(x)

    Below the k + 1 surest arms' reach there is no room, above the k-th highest
    reach there is room for sure; between the two the integral is taken by Gauss
    and Legendre's rule on panels as narrow as the narrowest arm about demands.
    Arms that cannot get there are left out. Against a rule twenty times finer,
    the error was 4e-7 in the median and below 1e-4 in the worst of thousands of
    mixed cases with up to 20 arms and standard deviations from 0.001 to 10.

    Args:
        mean: `(arms,)`.
        sd: `(arms,)`, above 0.
        k: how many are kept.
        chosen: arms to tell the probability of, `(chosen,)`.

    Returns:
        `(chosen,)`, in (0, 1].

    >>> top_k(np.zeros(4), np.ones(4), 2, np.arange(4)).round(3).tolist()
    [0.5, 0.5, 0.5, 0.5]
    >>> top_k(np.array([0.0, 1.0]), np.array([0.6, 0.8]), 1, np.arange(2)).round(3).tolist()
    [0.159, 0.841]
    """
    if k >= len(mean):
        return np.ones(len(chosen))
    mean = mean - mean.max()
    sd = np.maximum(sd, -_FINEST * mean.min())
    reach = _REACH * sd
    lower, upper = mean - reach, mean + reach
    low, high = np.sort(lower)[-k - 1], np.sort(upper)[-k]
    certain = lower >= high
    matter = (upper > low) ^ certain
    matter[chosen] = True
    certain[chosen] = False
    arms = matter.nonzero()[0]
    places = arms.searchsorted(chosen)
    mean, sd = mean[arms], sd[arms]

    edges = _edges(lower[arms], upper[arms], sd, low, high)
    points, weights = _quadrature(edges)
    z = _within_table((points - mean[:, None]) / sd[:, None])
    room = k - int(np.count_nonzero(certain))
    fewer = _others_fewer_than(room, _upper_tail(z), places)
    z = z[places]
    density = np.exp(-0.5 * z * z) * (_PEAK / sd[places, None])
    inside = (density * fewer) @ weights
    outside = _upper_tail(_within_table((high - mean[places]) / sd[places]))
    return _probability(inside + outside)


def race(rates: FloatArray, k: int, chosen: IntArray) -> FloatArray:
    """Inclusion probabilities of the k first in a race of exponential clocks.

    Arm j fires after T_j ~ Exp(rates_j): so are drawn the k first of Plackett and
    Luce's model, and the k largest log-rates with Gumbel noise (Yellott 1977;
    Kool et al. 2019, "Stochastic Beams and Where to Find Them"). With k = 1, an arm's
    share of the rates; else as in `top_k`, over log time, in which all arms are
    equally wide.

    Args:
        rates: `(arms,)`, at least 0 and not all 0; the unit does not matter.
        k: how many are kept.
        chosen: arms to tell the probability of, `(chosen,)`.

    Returns:
        `(chosen,)`, in (0, 1].

    >>> race(np.array([1.0, 1.0, 2.0]), 1, np.arange(3)).tolist()
    [0.25, 0.25, 0.5]
    >>> race(np.array([1.0, 1.0, 2.0]), 2, np.arange(3)).round(4).tolist()
    [0.5833, 0.5833, 0.8333]
    """
    if k >= len(rates):
        return np.ones(len(chosen))
    rates = np.maximum(rates / rates.max(), _SLOWEST)
    if k == 1:
        return _probability(rates[chosen] / rates.sum())
    early = math.log(_EARLY / rates.sum())
    late = math.log(_LATE / np.sort(rates)[-k - 1])
    points, weights = _quadrature(_evenly(early, late, math.ceil((late - early) / _LOG_PANEL)))
    expected = np.exp(points) * rates[:, None]
    fewer = _others_fewer_than(k, -np.expm1(-expected), chosen)
    expected = expected[chosen]
    inside = (expected * np.exp(-expected) * fewer) @ weights
    outside = -np.expm1(-math.exp(early) * rates[chosen])
    return _probability(inside + outside)


def _edges(
    lower: FloatArray, upper: FloatArray, sd: FloatArray, low: float, high: float
) -> FloatArray:
    """Ends of the panels from `low` to `high`, ascending, `(panels + 1,)`.

    A panel is no wider than `_PANEL` standard deviations of the narrowest of the
    arms that reach it.
    """
    panels = (high - low) / (_PANEL * sd.min())
    if panels <= _FEW_PANELS:
        return _evenly(low, high, int(panels) + 1)
    cuts = np.concatenate((lower, upper, (low, high)))
    cuts = np.minimum(np.maximum(cuts, low), high)
    cuts.sort()
    gaps = cuts[1:] - cuts[:-1]
    middle = cuts[:-1] + 0.5 * gaps
    reached = (lower[:, None] < middle) & (middle < upper[:, None])
    fineness = (reached / sd[:, None]).max(axis=0, initial=1.0 / (high - low))
    demand = np.zeros(len(cuts))
    np.cumsum(gaps * fineness, out=demand[1:])
    even = _evenly(0.0, demand[-1], int(demand[-1] / _PANEL) + 1)
    return np.interp(even, demand, cuts)


def _evenly(low: float, high: float, panels: int) -> FloatArray:
    return low + np.arange(panels + 1.0) * ((high - low) / panels)


def _quadrature(edges: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Points and their weights, each `(points,)`."""
    widths = (edges[1:] - edges[:-1])[:, None]
    return (edges[:-1, None] + widths * _NODES).ravel(), (widths * _WEIGHTS).ravel()


def _probability(integral: FloatArray) -> FloatArray:
    probability: FloatArray = np.minimum(np.maximum(integral, SMALLEST), 1.0)
    return probability


def _within_table(z: FloatArray) -> FloatArray:
    clipped: FloatArray = np.minimum(np.maximum(z, -_TABLE_REACH), _TABLE_REACH)
    return clipped


def _upper_tail(z: FloatArray) -> FloatArray:
    """P(Z > z) of a standard Gaussian, for z within the table."""
    position = (z + _TABLE_REACH) * _TABLE_STEPS
    index = position.astype(np.intp)
    tail: FloatArray = _TABLE.take(index) + (position - index) * _SLOPE.take(index)
    return tail


def _others_fewer_than(k: int, above: FloatArray, chosen: IntArray) -> FloatArray:
    """P(fewer than k of the arms without i are above), for each chosen i: `(chosen, points)`.

    The count is Poisson-binomial: none is above with the product of the arms'
    P(not above), one or two with that times the first or second elementary symmetric
    polynomial of their odds, which are sums of positive terms.
    """
    if k > _CLOSED_FORMS:
        return _others_fewer_than_many(k, above, chosen)
    below = np.maximum(1.0 - above, _RAREST)
    none: FloatArray = below.prod(axis=0) / below[chosen]
    if k == 1:
        return none
    odds = above / below
    others = np.ones((len(chosen), len(above)))
    others[np.arange(len(chosen)), chosen] = 0.0
    ways: FloatArray = 1.0 + others @ odds
    if k == _CLOSED_FORMS:
        theirs = others[:, :, None] * odds
        ways += (theirs * (_before(len(above)) @ theirs)).sum(axis=1)
    return none * ways


@cache
def _before(arms: int) -> FloatArray:
    """1 where one arm comes before another, `(arms, arms)`: sums over those before."""
    return np.tri(arms, k=-1)


def _others_fewer_than_many(k: int, above: FloatArray, chosen: IntArray) -> FloatArray:
    """The same for any k, by the count's recursion over arms.

    Leaving one out is joining the count over the arms before it to the count over
    those behind it, since taking an arm out of the whole count divides by
    probabilities near 0.
    """
    arms, points = above.shape
    ways = np.stack((above, above[::-1]), axis=1)[:, :, None]
    counts = np.empty((arms, 2, k, points))  # over the first arms, from either end
    counts[0] = 0.0
    counts[0, :, 0] = 1.0
    for i in range(arms - 1):
        rising = counts[i] * ways[i]
        np.subtract(counts[i], rising, out=counts[i + 1])
        counts[i + 1, :, 1:] += rising[:, :-1]
    before = counts[chosen, 0]
    behind_at_most = counts[arms - 1 - chosen, 1].cumsum(axis=1)
    fewer: FloatArray = (before * behind_at_most[:, ::-1]).sum(axis=1)
    return fewer
