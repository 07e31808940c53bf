import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crystals import RandomCrystal, random_crystals, real_crystals
from torch_geometric_crystal.data.neighbors import periodic_images
from torch_geometric_crystal.ops.lattice import count_polynomials, gram_schmidt_lengths, reduce_lattice
from torch_geometric_crystal.ops.lattice_tail import GAP_WINDOW, MAX_GAP, MIN_GAP
from torch_geometric_crystal.ops.truncation import (
    certified_cutoff,
    clear_cutoff,
    log_force_tail,
    posterior_truncation_bound,
    search_radius,
    search_radius_for_cutoff,
    truncation_bound,
)
from torch_geometric_crystal.transforms.infinite_neighborhood import DEFAULT_SPREAD

SIGMA_MAX = 1.4 / 0.5**0.5
ROUNDING = 1.0 - 1e-10  # brute-force sums of up to 1e6 terms are right to this

many = settings(max_examples=2000, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


def count_of(crystal: RandomCrystal) -> tuple[np.ndarray, float]:
    lengths = gram_schmidt_lengths(reduce_lattice(crystal.cell, crystal.pbc).basis)
    return count_polynomials(lengths), float(lengths.prod()) if crystal.pbc.all() else math.inf


def pair_sums(crystal, target, source, dist, sigma):
    n = crystal.num_atoms
    return np.bincount(target * n + source, np.exp(-(dist**2) / (2 * sigma**2)), minlength=n * n).reshape(n, n)


def worst_shares(crystal, target, source, dist, cutoff, sigma, spread, rng):
    """True dropped share of each row, for random logits and for those that favour the far sublattices."""
    outer = dist > cutoff
    beyond = pair_sums(crystal, target[outer], source[outer], dist[outer], sigma)
    within = pair_sums(crystal, target[~outer], source[~outer], dist[~outer], sigma)
    shares = []
    for logits in (
        spread * rng.random(beyond.shape),
        spread * (beyond * within.sum(1, keepdims=True) > within * beyond.sum(1, keepdims=True)),
        np.zeros_like(beyond),
    ):
        weights = np.exp(logits)
        shares.append((weights * beyond).sum(1) / (weights * (beyond + within)).sum(1))
    return np.stack(shares)


@many
@given(random_crystals(), st.floats(0.6, 2.0), st.floats(2.0, 5.0), st.floats(0.0, 1.5), st.floats(0.0, 3.0))
def test_bounds_are_never_below_the_truth(crystal, sigma_max, relative_cutoff, margin, spread):
    cutoff = relative_cutoff * sigma_max
    radius = cutoff + margin
    count, _ = count_of(crystal)
    target, source, _, dist = crystal.images(radius + 2.0 * sigma_max)
    listed = dist <= radius
    share, log_tail = truncation_bound(
        target[listed], dist[listed], crystal.num_atoms, radius, count, sigma_max, cutoff, spread
    )
    force_tail = log_force_tail(target[listed], dist[listed], crystal.num_atoms, radius, count, sigma_max, cutoff)

    outer = dist > cutoff
    weights = np.exp(-(dist[outer] ** 2) / (2 * sigma_max**2))
    assert (np.exp(log_tail) >= ROUNDING * np.bincount(target[outer], weights, crystal.num_atoms)).all()
    forces = dist[outer] / sigma_max**2 * weights
    assert (np.exp(force_tail) >= ROUNDING * np.bincount(target[outer], forces, crystal.num_atoms)).all()
    rng = np.random.default_rng(0)
    for sigma in (sigma_max, sigma_max * rng.uniform(0.3, 1.0)):
        assert (worst_shares(crystal, target, source, dist, cutoff, sigma, spread, rng) * ROUNDING <= share).all()


@many
@given(random_crystals(), st.floats(0.6, 1.5), st.floats(-9.0, -0.5), st.floats(0.0, 2.0))
def test_certified_cutoff_keeps_every_true_share_within_tol(crystal, sigma_max, log10_tol, spread):
    tol = 10.0**log10_tol
    count, volume = count_of(crystal)
    n = crystal.num_atoms
    radius = search_radius(count, n, volume, sigma_max, tol, spread)
    lattice = reduce_lattice(crystal.cell, crystal.pbc)
    cutoff = None
    while cutoff is None:
        images = periodic_images(crystal.pos, lattice, radius)
        cutoff = certified_cutoff(images.target, images.dist, n, radius, count, sigma_max, tol, spread)
        radius += sigma_max
    target, source, _, dist = crystal.images(cutoff + 2.0 * sigma_max)
    rng = np.random.default_rng(0)
    for sigma in (sigma_max, sigma_max * rng.uniform(0.3, 1.0)):
        assert (worst_shares(crystal, target, source, dist, cutoff, sigma, spread, rng) * ROUNDING <= tol).all()


@settings(max_examples=200, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_crystals(), st.floats(0.3, 1.0), st.floats(2.5, 5.0))
def test_posterior_bound_is_never_below_the_true_share(crystal, relative_sigma, relative_cutoff):
    r0, rho_min, heads = 1.4, 0.5, 3
    n, cutoff = crystal.num_atoms, relative_cutoff * SIGMA_MAX * 0.5
    count, _ = count_of(crystal)
    target, source, _, dist = crystal.images(cutoff + 4.0)
    _, log_tail = truncation_bound(target, dist, n, cutoff + 4.0, count, SIGMA_MAX, cutoff, 0.0)
    generator = torch.Generator().manual_seed(0)
    rho = rho_min + torch.rand(n, heads, generator=generator, dtype=torch.float64) / relative_sigma**2
    logits = 3.0 * torch.randn(n, n, heads, generator=generator, dtype=torch.float64)
    target, source, dist = (torch.from_numpy(array) for array in (target, source, dist))
    weights = (logits[target, source] - dist[:, None] ** 2 * rho[target] / (2 * r0**2)).exp()
    kept = torch.zeros(n, heads, dtype=torch.float64).index_add(0, target[dist <= cutoff], weights[dist <= cutoff])
    dropped = torch.zeros(n, heads, dtype=torch.float64).index_add(0, target[dist > cutoff], weights[dist > cutoff])

    bound = posterior_truncation_bound(
        torch.from_numpy(log_tail), torch.full((n,), cutoff), rho, r0, rho_min, logits.amax(1), kept.log()
    )
    assert (dropped / (dropped + kept) * ROUNDING <= bound).all()
    assert (bound <= 1.0).all()


def test_posterior_bound_is_zero_where_nothing_was_dropped():
    bound = posterior_truncation_bound(
        torch.tensor([-math.inf]), torch.tensor(5.0), torch.ones(1, 2), 1.4, 0.5, torch.zeros(1, 2), torch.zeros(1, 2)
    )
    assert torch.equal(bound, torch.zeros(1, 2))


@pytest.fixture(scope="module")
def crystals():
    return real_crystals(step=40)


def smallest_true_cutoff(target, dist, num_atoms, tol):
    """Smallest radius at which no row drops more than tol, for sigma_max and equal logits."""
    order = np.argsort(dist)
    target, dist = target[order], dist[order]
    weights = np.exp(-(dist**2) / (2 * SIGMA_MAX**2))
    total = np.bincount(target, weights, num_atoms)
    tails = np.stack([np.cumsum((weights * (target == row))[::-1])[::-1] / total[row] for row in range(num_atoms)])
    return dist[np.flatnonzero((tails > tol).any(axis=0))[-1]]


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_certified_cutoff_is_within_15_percent_of_the_smallest_on_real_crystals(crystals, tol):
    pbc = np.ones(3, dtype=bool)
    waste = []
    for pos, cell in crystals:
        lattice = reduce_lattice(cell, pbc)
        lengths = gram_schmidt_lengths(lattice.basis)
        count = count_polynomials(lengths)
        radius = search_radius(count, len(pos), lengths.prod(), SIGMA_MAX, tol, DEFAULT_SPREAD)
        images = periodic_images(pos, lattice, radius)
        cutoff = certified_cutoff(images.target, images.dist, len(pos), radius, count, SIGMA_MAX, tol, DEFAULT_SPREAD)
        assert cutoff is not None
        waste.append(cutoff / smallest_true_cutoff(images.target, images.dist, len(pos), tol))
    assert min(waste) >= 1.0
    assert np.median(waste) <= 1.15


def listed(pos, cell, radius, pbc=(True, True, True)):
    lattice = reduce_lattice(cell, np.array(pbc))
    images = periodic_images(np.asarray(pos), lattice, radius)
    return images.target, images.dist, count_polynomials(gram_schmidt_lengths(lattice.basis))


def test_bound_is_zero_for_a_molecule_inside_the_cutoff():
    row, dist, count = listed([[0.0, 0, 0], [1.1, 0, 0], [0, 1.7, 0]], np.eye(3), 10.0, (False, False, False))
    share, log_tail = truncation_bound(row, dist, 3, 10.0, count, SIGMA_MAX, 5.0, 1.0)
    assert (share == 0.0).all()
    assert (log_tail == -math.inf).all()


def test_log_tail_does_not_underflow_at_a_cutoff_of_a_hundred_sigma():
    row, dist, count = listed([[0.0, 0, 0]], 3.0 * np.eye(3), 10.5)
    share, log_tail = truncation_bound(row, dist, 1, 10.5, count, 0.1, 10.0, 0.0)
    corners_of_the_next_shell = math.log(8.0) - 108.0 / (2 * 0.1**2)
    assert log_tail[0] == pytest.approx(corners_of_the_next_shell, abs=1e-3)
    assert share[0] == 0.0


def test_bound_for_a_cutoff_is_sharp_at_the_radius_that_search_radius_gives():
    cell = 4.0 * np.eye(3)
    count = count_polynomials(np.full(3, 4.0))
    radius = search_radius_for_cutoff(count, 1, 64.0, SIGMA_MAX, 7.0)
    row, dist, _ = listed([[0.0, 0, 0]], cell, radius)
    _, log_tail = truncation_bound(row, dist, 1, radius, count, SIGMA_MAX, 7.0, 0.0)
    far = listed([[0.0, 0, 0]], cell, 25.0)[1]
    truth = np.exp(-(far[far > 7.0] ** 2) / (2 * SIGMA_MAX**2)).sum()
    assert truth <= np.exp(log_tail[0]) <= 1.01 * truth


def test_bound_grows_with_spread_and_falls_with_cutoff():
    row, dist, count = listed([[0.0, 0, 0], [1.0, 2.0, 0.5]], 4.0 * np.eye(3), 14.0)
    by_spread = [truncation_bound(row, dist, 2, 14.0, count, SIGMA_MAX, 6.0, s)[0].max() for s in (0.0, 1.0, 3.0)]
    by_cutoff = [truncation_bound(row, dist, 2, 14.0, count, SIGMA_MAX, c, 1.0)[0].max() for c in (5.0, 7.0, 9.0)]
    assert by_spread == sorted(by_spread)
    assert by_cutoff == sorted(by_cutoff, reverse=True)


def test_certified_cutoff_says_when_the_list_is_too_short():
    row, dist, count = listed([[0.0, 0, 0]], 3.0 * np.eye(3), 6.0)
    assert certified_cutoff(row, dist, 1, 6.0, count, SIGMA_MAX, 1e-6, 1.0) is None


def test_certified_cutoff_lies_in_the_middle_of_a_gap_between_shells():
    row, dist, count = listed([[0.0, 0, 0]], 3.0 * np.eye(3), 14.0)
    cutoff = certified_cutoff(row, dist, 1, 14.0, count, SIGMA_MAX, 1e-3, 1.0)
    inner, outer = dist[dist <= cutoff].max(), dist[dist > cutoff].min()
    assert outer - inner > 0.1
    assert cutoff == pytest.approx(0.5 * (inner + outer))


def test_certified_cutoff_never_separates_shells_closer_than_the_smallest_gap():
    tight = 0.4 * MIN_GAP * SIGMA_MAX
    dist = np.concatenate([[0.0], 3.0 + tight * np.arange(6)])
    cutoff = certified_cutoff(np.zeros(7, dtype=np.int64), dist, 1, 9.0, np.ones((1, 1)), SIGMA_MAX, 0.3, 0.0)
    assert (dist <= cutoff).all()


def test_cutoff_goes_to_the_widest_gap_where_shells_are_dense():
    step = 0.4 * MIN_GAP * SIGMA_MAX
    dist = np.concatenate([[0.0], 3.0 + step * np.arange(2000)])
    wide = 3.0 + step * 40.0
    dist[dist > wide] += 0.5 * step
    assert clear_cutoff(dist, 3.0, SIGMA_MAX) == pytest.approx(wide + 0.75 * step, abs=1e-9)


@pytest.mark.parametrize(
    ("cutoff", "expected"),
    [
        pytest.param(5.0, 5.0, id="clear of shells"),
        pytest.param(6.0, 6.0 + 0.5 * (math.sqrt(45.0) - 6.0), id="on a shell"),
        pytest.param(6.0 - 1e-7, 6.0 + 0.5 * (math.sqrt(45.0) - 6.0), id="rounding below a shell"),
    ],
)
def test_given_cutoff_moves_only_where_it_touches_a_shell(cutoff, expected):
    _, dist, _ = listed([[0.0, 0, 0]], 3.0 * np.eye(3), 6.0 + (MIN_GAP + GAP_WINDOW + MAX_GAP) * SIGMA_MAX)
    assert clear_cutoff(dist, cutoff, SIGMA_MAX) == pytest.approx(expected, abs=1e-12)


def test_arguments_out_of_range_are_refused():
    row, dist, count = listed([[0.0, 0, 0]], 3.0 * np.eye(3), 6.0)
    with pytest.raises(ValueError, match=r"tol: expected a share in \[1e-100, 1\), received 0"):
        certified_cutoff(row, dist, 1, 6.0, count, SIGMA_MAX, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"spread: expected a number in \[0, 100\)"):
        certified_cutoff(row, dist, 1, 6.0, count, SIGMA_MAX, 1e-3, -1.0)
    with pytest.raises(ValueError, match=r"spread: expected a number >= 0"):
        truncation_bound(row, dist, 1, 6.0, count, SIGMA_MAX, 5.0, -1.0)
    with pytest.raises(ValueError, match=r"cutoff: expected 0 <= cutoff <= radius = 6"):
        truncation_bound(row, dist, 1, 6.0, count, SIGMA_MAX, 7.0, 1.0)
    with pytest.raises(ValueError, match=r"cutoff: expected 2\.8 <= cutoff <= radius = 6"):
        log_force_tail(row, dist, 1, 6.0, count, SIGMA_MAX, 2.0)
