"""Crystalformer against the authors' own code: every output, intermediate value and gradient of the fixtures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.nn.crystal_graph import gather_crystal_graph
from torch_geometric_crystal.nn.models.official_checkpoint import translate_official
from torch_geometric_crystal.ops import group_edges, infinite_attention, reciprocal_attention

FIXTURES = Path(__file__).parents[2] / "fixtures" / "parity"
NAMES = ["real_beta", "real_simple", "multihead", "multihead_beta", "real_reci"]
EXACT, STORED_IN_FLOAT32 = 1e-8, 2e-7


def relative_error(ours, official):
    official = torch.as_tensor(official, dtype=torch.float64)
    assert ours.shape == official.shape
    return float((ours.detach().double() - official).abs().max() / official.abs().max())


@pytest.fixture(scope="module", params=NAMES)
def fixture(request):
    arrays = dict(np.load(FIXTURES / f"{request.param}.npz"))
    for extra in sorted(FIXTURES.glob(f"{request.param}_grad*.npz")):
        arrays |= dict(np.load(extra))
    return arrays


@pytest.fixture(scope="module")
def config(fixture):
    return json.loads(str(fixture["config"]))


@pytest.fixture(scope="module")
def model(fixture, config):
    return Crystalformer.from_official_state_dict(weights_of(fixture), config).double()


@pytest.fixture(scope="module")
def batch(fixture, model):
    transform = model.neighborhood(tol=1e-12)
    crystals = []
    for crystal, (first, last) in enumerate(zip(fixture["ptr"], fixture["ptr"][1:], strict=False)):
        data = Data(
            z=torch.from_numpy(fixture["Z"][first:last]).long(),
            pos=torch.from_numpy(fixture["pos"][first:last]),
            cell=torch.from_numpy(fixture["cell"][crystal : crystal + 1]),
            pbc=torch.ones(1, 3, dtype=torch.bool),
            structure_id=str(fixture["structure_id"][crystal]),
        )
        crystals.append(transform(data))
    return Batch.from_data_list(crystals)


@pytest.fixture(scope="module")
def graph(model, batch):
    basis = model._basis
    return gather_crystal_graph(batch, torch.float64, model.has_real_heads, model.has_reciprocal_heads, basis)


@pytest.fixture(scope="module")
def states(model, batch, graph):
    """Input of every block, and the output of the last."""
    states = [model.embedding(batch.z - 1)]
    for block in model.blocks:
        states.append(block(states[-1], graph)[0])
    return [state.detach() for state in states]


def weights_of(fixture):
    return {key[2:]: torch.from_numpy(value) for key, value in fixture.items() if key.startswith("w/")}


def pairs_of(fixture):
    """Target and source atom of each pair of each crystal, the source fastest."""
    targets, sources = [], []
    for first, last in zip(fixture["ptr"], fixture["ptr"][1:], strict=False):
        atoms = torch.arange(first, last)
        targets.append(atoms.repeat_interleave(len(atoms)))
        sources.append(atoms.repeat(len(atoms)))
    return torch.cat(targets), torch.cat(sources)


def test_output_pooled_states_and_every_layer_agree(fixture, model, batch, states):
    out, pooled = model(batch, return_embedding=True)
    assert relative_error(out, fixture["out"]) <= EXACT
    assert relative_error(pooled, fixture["pooled"]) <= EXACT
    for layer, state in enumerate(states[1:]):
        assert relative_error(state, fixture[f"layer{layer}_out"]) <= EXACT


def test_rho_agrees(fixture, model, states):
    for layer, block in enumerate(model.blocks):
        _, _, _, rho = block.attention._project(states[layer])
        assert relative_error(rho, fixture[f"layer{layer}_rho"]) <= EXACT


def attended_one_source(attention, state, graph, target, source):
    """Log alpha and beta of pairs: with q = 0 the log-sum-exp over the images of one source is log alpha."""
    _, _, value, rho = attention._project(state)
    zero = torch.zeros_like(value)
    log_alpha = torch.full((len(target), attention.heads), torch.nan, dtype=torch.float64)
    beta = torch.zeros(len(target), attention.heads, attention.head_dim, dtype=torch.float64)
    split = attention.real_heads
    if split:
        neighborhood = graph.neighborhood
        edge_pair = neighborhood.target() * len(state) + neighborhood.source
        order = {int(code): index for index, code in enumerate(target * len(state) + source)}
        rows = torch.tensor([order[int(code)] for code in edge_pair])
        # Every pair becomes a row of its own, with the width of its target.
        one_row_each = group_edges(torch.stack([torch.zeros_like(rows), rows]), neighborhood.dist, len(target))
        flat = torch.zeros(len(target), split, attention.head_dim, dtype=torch.float64)
        out, lse = infinite_attention(
            flat, flat, flat, rho[target, :split], one_row_each,
            r0=attention.r0, value_encoding=attention.value_encoding, basis=attention.basis,
        )  # fmt: skip
        log_alpha[:, :split], beta[:, :split] = lse, out
    if split < attention.heads:
        sigma_sq = rho[:, split:] * attention.r0_reciprocal**2
        for column in range(int(torch.bincount(graph.batch).max())):
            first = graph.waves.atom_ptr[:-1]
            chosen = torch.minimum(first + column, graph.waves.atom_ptr[1:] - 1)
            key = zero[:, split:].clone()
            key[chosen] = 1e3
            query = torch.ones_like(key)
            _, lse = reciprocal_attention(query, key, key, sigma_sq, graph.waves, scale=1.0, floor=1e-6)
            peak = 1e3 * attention.head_dim
            here = source == chosen[graph.batch[target]]
            log_alpha[here, split:] = lse[target[here]] - peak
    return log_alpha, beta


def test_log_alpha_and_beta_agree(fixture, model, graph, states):
    target, source = pairs_of(fixture)
    checked = 0
    for layer, block in enumerate(model.blocks):
        if f"layer{layer}_log_alpha" not in fixture:
            continue
        log_alpha, beta = attended_one_source(block.attention, states[layer], graph, target, source)
        official = torch.from_numpy(fixture[f"layer{layer}_log_alpha"])
        # Images beyond the cutoff are absent: a pair that has none left weighs less than the tolerance.
        kept = log_alpha.isfinite() & (official > -20)
        assert kept.float().mean() > 0.5
        assert float((log_alpha.detach() - official)[kept].abs().max()) <= EXACT
        if f"layer{layer}_beta" in fixture:
            official_beta = fixture[f"layer{layer}_beta"]
            kept_beta = kept[: len(official_beta)].unsqueeze(-1)
            assert relative_error(beta[: len(official_beta)] * kept_beta, official_beta * kept_beta.numpy()) <= EXACT
        checked += 1
    assert checked >= 1


def test_every_gradient_agrees(fixture, config, model, batch):
    model.zero_grad()
    model(batch).sum().backward()
    official = {key: torch.zeros_like(value, dtype=torch.float64) for key, value in weights_of(fixture).items()}
    known = {key[2:]: torch.from_numpy(value).double() for key, value in fixture.items() if key.startswith("g/")}
    without = set(official) - set(known)
    assert all(key.endswith("gauss_scale") for key in without)
    _, expected = translate_official(official | known, config)
    for name, parameter in model.named_parameters():
        assert relative_error(parameter.grad, expected[name]) <= STORED_IN_FLOAT32, name


def test_float32_output_agrees(fixture, config, batch):
    model = Crystalformer.from_official_state_dict(weights_of(fixture), config)
    assert relative_error(model(batch), fixture["out"]) <= 1e-5


def test_posterior_bound_certifies_the_graph(model, batch):
    assert float(model.truncation_report(batch).max()) <= 1e-11
