"""Decays have the shape, tail and transform that they claim; the attention is the library's where that has it."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch_geometric.data import Batch

from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.nn.models import MODELS
from torch_geometric_crystal.ops import group_edges, infinite_attention
from torch_geometric_crystal.testing.crystals import small_crystals

NAMES = ("gaussian", "exponential", "yukawa", "inverse-power", "compact", "mixture")
FIXED = NAMES[:-1]
LENGTH = 1.4 * math.sqrt(2)
POISSON = (
    ("gaussian", 1e-9),
    ("mixture", 1e-9),
    ("inverse-power", 1e-5),
    ("compact", 1e-3),
    ("exponential", 2e-3),
    ("yukawa", 1e-2),
)
SMALL = {"channels": 16, "num_blocks": 2, "num_heads": 2, "num_basis": 8}


@pytest.fixture(scope="module", autouse=True)
def _models_of_the_library_again_afterwards():
    before = dict(MODELS)
    yield
    for name in set(MODELS) - set(before):
        del MODELS[name]


def _decay(name):
    from decays_profiles import DECAYS

    return DECAYS[name]


def _cells():
    """Positions and cells: known structures, and random ones, skewed, flat and tiny."""
    known = [(data.pos.double().numpy(), data.cell[0].double().numpy()) for data in small_crystals(torch.float64)[::2]]
    rng = np.random.default_rng(0)
    random = []
    for stretch in ((1, 1, 1), (0.6, 1, 2.5), (0.5, 0.5, 0.5)):
        cell = np.diag(4.0 * np.array(stretch)) + rng.normal(size=(3, 3)) * 0.4
        skewed = np.array([[1, 0, 0], [2, 1, 0], [-1, 3, 1]]) @ cell
        random.append((rng.random((2, 3)) @ cell, skewed))
    return known + random


def _all_dist(pos, cell, radius):
    """Vectors of all images within a radius of each pair of atoms, by plain enumeration: lists by (i, j)."""
    reach = np.ceil(radius * np.linalg.norm(np.linalg.inv(cell), axis=0) + 3).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in reach), indexing="ij"), -1).reshape(-1, 3) @ cell
    found = {}
    for i in range(len(pos)):
        for j in range(len(pos)):
            dist = np.linalg.norm(pos[j] - pos[i] + steps, axis=1)
            found[i, j] = dist[dist <= radius]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_all_shapes_start_at_one_and_fall(name):
    value = _decay(name).value(np.linspace(0, 8, 200))
    assert value[0] == pytest.approx(1.0)
    assert (np.diff(value) <= 0).all()


@pytest.mark.parametrize("name", FIXED)
def test_all_shapes_have_the_mean_square_distance_of_the_gaussian(name):
    decay = _decay(name)
    moments = [integrate.quad(lambda s, k=k: s**k * decay.value(s), 0, np.inf, limit=200)[0] for k in (2, 4)]
    assert moments[1] / moments[0] == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize("name", FIXED)
def test_the_share_beyond_a_cutoff_grows_with_the_length(name):
    """-s f' / f does not decrease, which is what the certificate rests on."""
    decay = _decay(name)
    s = np.linspace(0.05, 2.9 if name == "compact" else 12, 500)
    slope = -np.gradient(np.log(decay.value(s)), np.log(s), edge_order=2)[2:-2]
    assert (np.diff(slope) >= -1e-6).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("start", [0.5, 2.0, 2.9, 5.0])
def test_moments_bound_the_integrals(name, start):
    decay = _decay(name)
    end = 3.0 if name == "compact" else np.inf
    for k, bound in enumerate(decay.moments(start)):
        integral = integrate.quad(lambda s, k=k: s**k * decay.value(s), start, end)[0] if start < end else 0.0
        assert integral * (1 - 1e-7) - 1e-12 <= bound
        if name != "inverse-power":
            assert bound == pytest.approx(integral, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_log_value_is_the_logarithm_of_the_value(name):
    decay = _decay(name)
    s = torch.linspace(0, 2.95, 50, dtype=torch.float64)
    found = decay.log_value(s.square().expand(1, 1, -1), decay.shape(1)).exp().flatten()
    np.testing.assert_allclose(found.numpy(), decay.value(s.numpy()), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_log_value_has_finite_gradients_at_the_self_image_and_beyond_the_support(name):
    decay = _decay(name)
    square = torch.tensor([[[0.0, 1.0, 25.0]]], requires_grad=True)
    decay.log_value(square, decay.shape(1)).exp().sum().backward()
    assert square.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_transform_is_the_radial_integral(name):
    decay = _decay(name)
    end = 3.0 if name == "compact" else 60.0
    for k in (0.3, 1.0, 4.0):
        integral = integrate.quad(lambda s, k=k: s * decay.value(s) / k, 0, end, weight="sin", wvar=k, limit=400)[0]
        assert 4 * math.pi * integral == pytest.approx(float(decay.transform(np.array(k))), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("name", "tolerance"), POISSON)
def test_poisson_summation_gives_the_real_space_sum(name, tolerance):
    """The tolerances are those of the sums' ends: transforms of shapes with a kink fall slowly."""
    decay, length = _decay(name), 1.3
    cell = np.array([[2.9, 0.3, 0.0], [-0.4, 3.1, 0.2], [0.1, 0.6, 2.7]])
    x = np.array([0.7, -0.4, 1.1])
    radius = 90.0 if name == "inverse-power" else 30.0
    dist = _all_dist(np.stack([np.zeros(3), x]), cell, radius)[0, 1]
    real = decay.value(dist / length).sum()
    if name == "inverse-power":  # a continuum beyond
        volume = np.linalg.det(cell)
        real += 4 * math.pi / volume * length**3 * float(decay.moments(radius / length)[2])
    reciprocal = 2 * math.pi * np.linalg.inv(cell).T
    m = np.arange(-24, 25)
    waves = np.stack(np.meshgrid(m, m, m, indexing="ij"), -1).reshape(-1, 3) @ reciprocal
    size = np.linalg.norm(waves, axis=1)
    waves, size = waves[size <= 45], size[size <= 45]
    terms = decay.transform(size * length) * np.cos(waves @ x)
    assert length**3 / np.linalg.det(cell) * terms.sum() == pytest.approx(real, rel=tolerance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tol", [0.1, 0.01])
def test_certified_share_bounds_the_true_one(name, tol):
    """Against plain sums far beyond the cutoff, with the worst logits within the spread and shorter lengths."""
    from decays_truncation import certified_images

    decay, spread = _decay(name), 1.0
    for pos, cell in _cells():
        images = certified_images(pos, cell, decay, LENGTH, tol, spread)
        assert images.bound <= tol
        far = _all_dist(pos, cell, min(1.6 * images.cutoff + 4, 30.0))
        assert sum((dist <= images.cutoff).sum() for dist in far.values()) == len(images.dist)
        for length in (LENGTH, 0.6 * LENGTH):
            for i in range(len(pos)):
                row = np.concatenate([far[i, j] for j in range(len(pos))])
                weight = decay.certifier().value(row / length)
                outside, inside = weight[row > images.cutoff].sum(), weight[row <= images.cutoff].sum()
                assert math.exp(spread) * outside <= images.bound * (math.exp(spread) * outside + inside) * (1 + 1e-9)


def test_a_mixture_drops_no_more_than_its_widest_gaussian():
    decay = _decay("mixture")
    rng = np.random.default_rng(1)
    r = rng.random(300) * 12
    for _ in range(50):
        shape = torch.tensor(rng.normal(size=(2, 1, 3)) * 3)
        weight = decay.log_value(torch.tensor(r).square().expand(1, 1, -1), shape).exp().flatten().numpy()
        widest = decay.certifier().value(r)
        share, bound = (w[r > 4].sum() / w.sum() for w in (weight, widest))
        assert share <= bound * (1 + 1e-9)


def test_counting_bound_exceeds_the_sum_by_little_far_out():
    from decays_truncation import counted_tail

    from torch_geometric_crystal.ops.lattice import count_polynomials, gram_schmidt_lengths

    cell, radius = 3.0 * np.eye(3), 25.0
    decay = _decay("exponential")
    count = count_polynomials(gram_schmidt_lengths(cell))
    dist = _all_dist(np.zeros((1, 3)), cell, 60.0)[0, 0]
    listed = (dist <= radius).sum() * decay.value(np.array(radius / 4.0))
    truth = decay.value(dist[dist > radius] / 4.0).sum()
    bound = counted_tail(decay, 4.0, count, radius, 1) - listed
    assert truth <= bound <= 3 * truth


def test_inverse_power_tails_are_the_plain_sums():
    from decays_truncation import inverse_power_tails

    far, near = 40.0, 5.0
    for pos, cell in _cells()[-3:]:
        tails = inverse_power_tails(pos, cell, near, 5)
        density = 1 / abs(np.linalg.det(cell))
        for (i, j), dist in _all_dist(pos, cell, far).items():
            for term, found in enumerate(tails[i, j]):
                q = term + 3
                beyond = 4 * math.pi * density * far ** (3 - 2 * q) / (2 * q - 3)
                plain = (dist[dist > near] ** (-2.0 * q)).sum() + beyond
                assert found == pytest.approx(plain * near ** (2 * q), rel=2e-4 if q == 3 else 1e-6)


@pytest.mark.parametrize("length", [0.7, LENGTH])
def test_inverse_power_with_its_rest_is_the_reciprocal_sum(length):
    """Images within the cutoff and the series beyond, against the sum over waves, which converges exponentially."""
    from decays_model import NEAR, log_tail
    from decays_truncation import inverse_power_series, inverse_power_tails

    decay = _decay("inverse-power")
    cell = np.array([[2.9, 0.3, 0.0], [-0.4, 3.1, 0.2], [0.1, 0.6, 2.7]])
    pos = np.array([[0.0, 0.0, 0.0], [0.7, -0.4, 1.1]])
    tails = inverse_power_tails(pos, cell, NEAR, 5)
    series = inverse_power_series(np.array((length / NEAR) ** 2), tails)
    near = np.array([[decay.value(_all_dist(pos, cell, NEAR)[i, j] / length).sum() for j in (0, 1)] for i in (0, 1)])
    m = np.arange(-24, 25)
    waves = np.stack(np.meshgrid(m, m, m, indexing="ij"), -1).reshape(-1, 3) @ (2 * math.pi * np.linalg.inv(cell).T)
    phase = np.cos((pos[:, None] - pos[None]) @ waves.T)
    exact = length**3 / np.linalg.det(cell) * phase @ decay.transform(np.linalg.norm(waves, axis=1) * length)
    np.testing.assert_allclose(near + series, exact, rtol=1e-4)
    found = log_tail(torch.full((2, 1, 1), length**-2), torch.from_numpy(tails)[:, None], torch.ones(2, 1, 2).bool())
    np.testing.assert_allclose(found[:, 0].exp().numpy(), series, rtol=1e-5)


def _models(name="gaussian"):
    from decays_model import DecayCrystalformer

    torch.manual_seed(0)
    return DecayCrystalformer(decay=name, **SMALL).eval(), Crystalformer(**SMALL).eval()


def test_gaussian_is_the_library():
    """Same weights, same output and gradients, to the truncation of each and to rounding."""
    plain, library = _models()
    library.load_state_dict(plain.state_dict())
    for model in (plain, library):
        for block in model.blocks:
            block.attention.decay.statistics.copy_(torch.tensor([3.0, 0.1]))
    outputs = []
    for model in (plain, library):
        transform = model.neighborhood(tol=1e-6)
        out = model(Batch.from_data_list([transform(data) for data in small_crystals()]))
        out.square().sum().backward()
        outputs.append(out.detach())
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    gradients = zip(plain.parameters(), library.parameters(), strict=True)
    for ours, theirs in gradients:
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_merged_shells_give_what_single_images_give(name):
    model, _ = _models(name)
    merged, single = (
        model(Batch.from_data_list([model.neighborhood(merge=merge)(data) for data in small_crystals()]))
        for merge in (True, False)
    )
    torch.testing.assert_close(merged, single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_crystals(name):
    model, _ = _models(name)
    crystals = [model.neighborhood()(data) for data in small_crystals()]
    alone = torch.cat([model(data) for data in crystals])
    torch.testing.assert_close(model(Batch.from_data_list(crystals)), alone, rtol=1e-4, atol=1e-5)


def test_the_library_takes_the_exponential_at_other_distances():
    """exp(-kappa sqrt(rho) r / r0) is the Gaussian of a distance whose square is 2 kappa r0 r, without encoding."""
    rng = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 2, 4, generator=rng) for _ in range(3))
    rho = 0.5 + torch.rand(2, 2, generator=rng)
    edges = torch.tensor([[0, 0, 1, 1, 0, 1], [0, 0, 0, 1, 1, 1]])
    dist, kappa, r0 = torch.tensor([0.0, 3.0, 2.2, 0.0, 2.2, 3.1]), 2.0, 1.4
    mapped = group_edges(edges, (2 * kappa * r0 * dist).sqrt(), 2)
    out, _ = infinite_attention(query, key, value, rho.sqrt(), mapped, r0=r0, scale=0.5)
    logit = (query[edges[1]] * key[edges[0]]).sum(-1) * 0.5
    square = rho[edges[1]] * (dist[:, None] / r0).square()
    weight = (logit + _decay("exponential").log_value(square[:, None], None)[:, 0]).exp()
    total = torch.zeros(2, 2).index_add(0, edges[1], weight)
    plain = torch.zeros(2, 2, 4).index_add(0, edges[1], weight[..., None] * value[edges[0]]) / total[..., None]
    torch.testing.assert_close(out, plain, rtol=1e-4, atol=1e-5)


def test_quick_form(run_quickly):
    figures = run_quickly("decays")
    findings = figures["findings"]
    assert len(figures["rows"]) == 6
    assert {row["first"]["decay"] for row in findings["against_gaussian"]} == {"compact", "inverse-power"}
    edges = {(row["decay"], row["tol"]): row for row in findings["edges"]}
    assert all(row["bound"] <= row["tol"] for row in edges.values() if row["tol"] is not None)
    needed = [edges[name, 0.03]["edges_per_atom"] for name in ("compact", "gaussian", "inverse-power")]
    assert needed == sorted(needed)
    assert all(row["milliseconds"] > 0 for row in findings["steps"])
