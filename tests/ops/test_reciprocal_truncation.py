import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crystals import random_crystals
from torch_geometric_crystal.ops.lattice import lattice_points
from torch_geometric_crystal.ops.reciprocal_truncation import wave_cutoff, wave_truncation_bound, wave_vectors

many = settings(max_examples=2000, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


def reciprocal(cell):
    return 2.0 * math.pi * np.linalg.inv(cell).T


def all_waves(core, radius):
    """All wave vectors of length up to radius, by plain enumeration in the core basis."""
    limits = (np.floor(radius * np.linalg.norm(core, axis=1) / (2.0 * math.pi)) + 1).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in limits), indexing="ij"), -1).reshape(-1, 3)
    waves = grid @ reciprocal(core)
    return waves[(waves**2).sum(1) <= radius**2]


def structure_sums(waves, pos, sigma):
    phases = waves @ pos.T
    amplitudes = np.exp(-(sigma**2) * (waves**2).sum(1) / 4)[:, None] * np.exp(1j * phases)
    return (amplitudes.T @ amplitudes.conj()).real


@many
@given(random_crystals(), st.floats(0.8, 2.0), st.floats(1.5, 4.0), st.floats(0.0, 2.0))
def test_wave_bound_is_never_below_the_true_effect(crystal, sigma_min, relative_cutoff, spread):
    n, cutoff = crystal.num_atoms, relative_cutoff / sigma_min
    bound = wave_truncation_bound(reciprocal(crystal.cell), n, sigma_min, cutoff, spread)
    waves = all_waves(crystal.core, cutoff + 3.0 / sigma_min)
    kept = (waves**2).sum(1) <= cutoff**2
    rng = np.random.default_rng(0)
    for sigma in (sigma_min, sigma_min * rng.uniform(1.0, 1.5)):
        sums = np.maximum(structure_sums(waves, crystal.pos, sigma), 1e-6)
        partial = np.maximum(structure_sums(waves[kept], crystal.pos, sigma), 1e-6)
        for logits in (np.zeros((n, n)), spread * rng.random((n, n)), spread * (1.0 - np.eye(n))):
            effect = (np.exp(logits) * abs(sums - partial)).sum(1) / (np.exp(logits) * partial).sum(1)
            assert (effect <= bound + 1e-12).all()


@many
@given(random_crystals(), st.floats(0.8, 2.0), st.floats(-8.0, -1.0), st.floats(0.0, 2.0))
def test_wave_cutoff_is_certified(crystal, sigma_min, log10_tol, spread):
    basis, n, tol = reciprocal(crystal.cell), crystal.num_atoms, 10.0**log10_tol
    cutoff = wave_cutoff(basis, n, sigma_min, tol, spread)
    assert wave_truncation_bound(basis, n, sigma_min, cutoff, spread) <= tol
    lengths = np.linalg.norm(all_waves(crystal.core, cutoff + 3.0 / sigma_min), axis=1)
    weights = np.exp(-(sigma_min**2) * lengths**2 / 2)
    tail, within = weights[lengths > cutoff].sum(), weights[lengths <= cutoff].sum()
    assert (1 + (n - 1) * math.exp(spread)) * tail <= tol * within


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_crystals(), st.floats(0.0, 3.0))
def test_wave_vectors_are_one_of_each_pair_and_zero_first(crystal, cutoff):
    basis = reciprocal(crystal.cell)
    waves = wave_vectors(basis, cutoff)
    assert waves[0].tolist() == [0, 0, 0]
    both = {tuple(w) for w in waves.tolist()} | {tuple(w) for w in (-waves).tolist()}
    assert len(both) == 2 * len(waves) - 1
    assert len(both) == len(all_waves(crystal.core, cutoff))
    lengths = np.linalg.norm(waves @ basis, axis=1)
    assert (np.diff(lengths) >= -1e-8).all()
    assert (lengths <= cutoff * (1 + 1e-12)).all()


def test_waves_of_equal_length_come_in_the_order_of_their_indices():
    assert wave_vectors(np.eye(3), 1.2).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]


def test_wave_cutoff_is_hardly_larger_than_the_smallest():
    basis = reciprocal(5.0 * np.eye(3))
    cutoff = wave_cutoff(basis, 4, 1.5, 1e-4, 1.0)
    lengths = np.sort(lattice_points(basis, cutoff + 4.0)[1])
    weights = np.exp(-(1.5**2) * lengths**2 / 2)
    tails = weights[::-1].cumsum()[::-1]
    smallest = lengths[np.flatnonzero((1 + 3 * math.e) * tails > 1e-4 * weights.sum())[-1]]
    assert smallest < cutoff < 1.1 * smallest


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="tol: expected a share"):
        wave_cutoff(np.eye(3), 1, 1.0, 2.0, 0.0)
    with pytest.raises(ValueError, match="cutoff: expected a number >= 0"):
        wave_truncation_bound(np.eye(3), 1, 1.0, -1.0, 0.0)
