import math

import numpy as np
import pytest

from torch_geometric_crystal.ops.lattice_tail import (
    force_tail_factor,
    gaussian_tail_factor,
    radius_for_tail,
    scaled_moments,
)

SIGMA = 0.7
GRID = np.linspace(0.0, 12.0, 240001)


def integral_beyond(radius, values):
    """Trapezium rule from radius to twelve, in units of the Gaussian at radius."""
    inside = radius - 1e-12 <= GRID
    return np.trapezoid(values[inside], GRID[inside]) * math.exp(radius**2 / (2 * SIGMA**2))


@pytest.mark.parametrize("radius", [0.0, 1.0, 2.8])
def test_odd_moments_are_exact_and_even_ones_bounds(radius):
    moments = scaled_moments(radius, SIGMA, 5)
    truth = [integral_beyond(radius, GRID**k * np.exp(-(GRID**2) / (2 * SIGMA**2))) for k in range(6)]
    np.testing.assert_allclose(moments[1::2], truth[1::2], rtol=1e-6)
    assert (moments[::2] >= np.array(truth[::2]) * (1 - 1e-6)).all()
    if radius == 2.8:
        np.testing.assert_allclose(moments[2], truth[2], rtol=5e-3)


def test_tail_factors_are_the_integrals_of_the_count_against_the_falling_weight():
    count, radius = np.array([[1.0, 2.0, 0.5, 3.0]]), 2.8
    gaussian = np.exp(-(GRID**2) / (2 * SIGMA**2))
    polynomial = (count[0] * GRID[:, None] ** np.arange(4)).sum(1)
    weight = integral_beyond(radius, GRID / SIGMA**2 * gaussian * polynomial)
    force = integral_beyond(radius, (GRID**2 / SIGMA**4 - 1 / SIGMA**2) * gaussian * polynomial)
    assert weight * (1 - 1e-6) <= gaussian_tail_factor(count, radius, SIGMA) <= 1.01 * weight
    assert force * (1 - 1e-6) <= force_tail_factor(count, radius, SIGMA) <= 1.01 * force


def test_the_least_of_several_counts_is_taken():
    low, high = np.array([1.0, 0.0]), np.array([50.0, 1.0])
    both = gaussian_tail_factor(np.stack([high, low]), 2.0, SIGMA)
    assert both == gaussian_tail_factor(low[None], 2.0, SIGMA)


def test_radius_for_tail_reaches_the_target_even_when_it_is_far():
    count = np.array([[1e6, 0.0, 0.0, 1e9]])
    radius = radius_for_tail(count, 7, SIGMA, -20.0)
    log_tail = math.log(7 * gaussian_tail_factor(count, radius, SIGMA)) - radius**2 / (2 * SIGMA**2)
    assert -25.0 < log_tail <= -20.0
