"""Attention weights are those of the model: against a plain computation, the layer, and the other domain."""

import numpy as np
import pytest
import torch

from torch_geometric_crystal.data import from_structure
from torch_geometric_crystal.explain import (
    ReciprocalHeadsError,
    attention_map,
    attention_maps,
    image_graph,
    mean_distance,
    weight_by_distance,
)
from torch_geometric_crystal.nn import CGCNN, Crystalformer
from torch_geometric_crystal.ops.reciprocal_attention.reference import reciprocal_attention_reference


def graph_of(model, structure, **settings):
    add_graph = model.neighborhood(**settings) if settings else image_graph(model)
    return add_graph(from_structure(structure, dtype=torch.float64))


def plain_weights(model, data):
    """The paper's formulas with loops over atoms, heads and edges in numpy: weights of each block (L, H, E)."""
    number = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    source, target = data.edge_index.numpy()
    dist, n, heads = data.edge_dist.numpy(), data.num_nodes, 4
    x = number["embedding.weight"][data.z.numpy() - 1]
    width, spacing = x.shape[1], 10 * 1.4 / 8
    found = []
    for k in range(len(model.blocks)):
        part = {name.split(".", 2)[2]: value for name, value in number.items() if name.startswith(f"blocks.{k}.")}
        qkv = x @ part["attention.qkv.weight"].T + part["attention.qkv.bias"]
        q, key, v = (qkv[:, c * width : (c + 1) * width].reshape(n, heads, -1) for c in range(3))
        d = q.shape[2]
        scale, shift = part["attention.decay.statistics"]
        weights, out = np.zeros((heads, len(dist))), np.zeros((n, heads, d))
        for h in range(heads):
            for i in range(n):
                t = (q[i, h] @ part["attention.decay.weight"][h] + shift) * scale * 0.1
                rho = 1 + t if t > 0 else 1 + 0.5 * np.expm1(t / 0.5)
                edges = np.flatnonzero(target == i)
                logits = np.array(
                    [q[i, h] @ key[source[e], h] / np.sqrt(d) - rho * dist[e] ** 2 / (2 * 1.4**2) for e in edges]
                )
                weights[h, edges] = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
                for e in edges:
                    basis = np.exp(-((dist[e] - spacing * np.arange(1, 9)) ** 2) / (2 * spacing**2))
                    value = v[source[e], h] + part["attention.value_encoding"][h] @ basis
                    out[i, h] += weights[h, e] * value
        x = x + out.reshape(n, -1) @ part["attention.out.weight"].T + part["attention.out.bias"]
        hidden = np.maximum(x @ part["expand.weight"].T + part["expand.bias"], 0)
        x = x + hidden @ part["contract.weight"].T + part["contract.bias"]
        found.append(weights)
    return np.stack(found)


def test_weights_are_those_of_a_plain_computation_in_every_block(make_model, rutile):
    model = make_model()
    data = graph_of(model, rutile, cutoff=5.0)
    found = attention_map(model, data)
    expected = plain_weights(model, data)
    assert found.weights.shape == expected.shape == (2, 4, data.num_edges)
    np.testing.assert_allclose(found.weights, expected, atol=1e-12)
    assert np.ptp(found.weights.max(-1)) > 0.05  # the heads differ, so that equality means something


def test_weights_are_those_that_the_layer_returns(make_model, rutile):
    model = make_model()
    data = graph_of(model, rutile)
    layer = model.blocks[0].attention
    states = model.embedding(data.z - 1)
    _, (_, weights) = layer(states, data.edge_index, data.edge_dist, return_attention_weights=True)
    np.testing.assert_allclose(attention_map(model, data).weights[0], weights.detach().T, atol=1e-14)


def test_weights_of_each_atom_sum_to_one(make_model, rutile):
    (found,) = attention_maps(make_model(), [rutile])
    for weights in (found.weights, found.decay_weights):
        np.testing.assert_allclose(found.sum_by_target(weights), 1.0, atol=1e-12)
    np.testing.assert_allclose(found.pair_weights().sum(-1), 1.0, atol=1e-12)
    assert found.is_self.sum() == found.num_atoms == 6


def test_decay_weights_are_a_gaussian_of_the_width(make_model, rutile):
    (found,) = attention_maps(make_model(), [rutile])
    logit = -(found.dist**2) / (2 * found.sigma[..., found.target] ** 2)
    expected = np.exp(logit) / found.sum_by_target(np.exp(logit))[..., found.target]
    np.testing.assert_allclose(found.decay_weights, expected, atol=1e-13)


def test_a_model_in_single_precision_gives_the_same_to_its_rounding(make_model, rutile):
    model = make_model()
    (precise,) = attention_maps(model, [rutile])
    (single,) = attention_maps(model.float(), [rutile])
    assert single.weights.dtype == np.float64
    np.testing.assert_allclose(single.weights, precise.weights, atol=1e-5)


def test_edges_in_any_order_give_the_same_map(make_model, rutile):
    model = make_model()
    data = graph_of(model, rutile)
    expected = attention_map(model, data)
    order = torch.randperm(data.num_edges)
    shuffled = data.clone()
    shuffled.edge_index, shuffled.edge_shift = data.edge_index[:, order], data.edge_shift[order]
    shuffled.edge_dist = data.edge_dist[order]
    found = attention_map(model, shuffled)
    assert (np.diff(found.target) >= 0).all()
    np.testing.assert_allclose(found.pair_weights(), expected.pair_weights(), atol=1e-13)
    ends = found.pos[found.source] + found.shift @ found.cell - found.pos[found.target]
    np.testing.assert_allclose(np.linalg.norm(ends, axis=1), found.dist, atol=1e-12)


def test_a_supercell_has_the_same_profile_and_mean_distance(make_model, rutile):
    model = make_model()
    small = attention_map(model, graph_of(model, rutile, cutoff=6.0))
    large = attention_map(model, graph_of(model, rutile.make_supercell([2, 1, 1], in_place=False), cutoff=6.0))
    assert large.num_atoms == 2 * small.num_atoms
    edges = [0.05 + 0.5 * k for k in range(13)]
    profiles = [weight_by_distance([each], edges) for each in (small, large)]
    np.testing.assert_allclose(profiles[0].share, profiles[1].share, atol=1e-10)
    np.testing.assert_allclose(mean_distance([small]), mean_distance([large]), atol=1e-10)


def test_reciprocal_heads_have_the_pair_weights_of_the_reference(make_model, rutile):
    model = make_model(domain="reciprocal", num_basis=0)
    data = graph_of(model, rutile)
    found = attention_map(model, data)
    layer, n = model.blocks[0].attention, data.num_nodes
    query, key, _ = layer.qkv(model.embedding(data.z - 1)).view(-1, 3, 4, 4).unbind(1)
    sigma_sq = layer.decay(query) * layer.r0_reciprocal**2
    one_hot = torch.eye(n, dtype=torch.float64).unsqueeze(1).expand(n, 4, n)
    waves = model.gather(data).waves
    weights, _ = reciprocal_attention_reference(query, key, one_hot, sigma_sq, waves, layer.scale, 1e-6)
    np.testing.assert_allclose(found.pair_weights()[0], weights.detach().transpose(0, 1), atol=1e-13)
    np.testing.assert_allclose(found.sigma[0], sigma_sq.detach().sqrt().T, atol=1e-13)
    assert found.weights.shape == (2, 4, 0)
    assert not found.has_image_weights.any()


def test_in_mixed_blocks_half_of_the_heads_have_weights_of_images(make_model, rutile):
    (found,) = attention_maps(make_model(domain="multihead"), [rutile])
    assert found.has_image_weights.tolist() == [[True, True, False, False]] * 2
    assert np.isnan(found.weights[:, 2:]).all()
    assert np.isfinite(found.weights[:, :2]).all()
    np.testing.assert_allclose(found.pair_weights().sum(-1), 1.0, atol=1e-12)
    assert np.isfinite(found.sigma).all()


def test_alternating_blocks_are_told_apart(make_model, rutile):
    (found,) = attention_maps(make_model(domain="alternating"), [rutile])
    assert found.domains == ("real", "reciprocal")
    assert found.has_image_weights.tolist() == [[True] * 4, [False] * 4]
    np.testing.assert_allclose(found.pair_weights().sum(-1), 1.0, atol=1e-12)


def test_where_the_domain_is_chosen_there_are_weights_of_images_that_predict_the_same(make_model, rocksalt):
    model = make_model(domain="auto", num_basis=0)
    chosen = graph_of(model, rocksalt, tol=1e-6)
    both = graph_of(model, rocksalt, tol=1e-6, domain="all")
    torch.testing.assert_close(model(chosen), model(both), rtol=1e-5, atol=1e-5)  # Poisson's identity
    (found,) = attention_maps(model, [rocksalt])
    assert found.has_image_weights.all()
    np.testing.assert_allclose(found.sum_by_target(found.weights), 1.0, atol=1e-12)


def test_structures_of_all_kinds_are_taken_and_named(make_model, rutile, rocksalt):
    model = make_model()
    data = from_structure(rocksalt, structure_id="salt", dtype=torch.float64)
    first, second = attention_maps(model, [rutile, data])
    assert (first.structure_id, first.formula) == ("structures[0]", "Ti2O4")
    assert (second.structure_id, second.formula) == ("structures[1]", "Na4Cl4")
    (named,) = attention_maps(model, [data], ["salt"])
    np.testing.assert_array_equal(named.weights, second.weights)
    assert named.structure_id == "salt"
    assert 0 <= named.truncation_bound < 1


def test_other_models_and_wrong_input_are_refused(make_model, rutile):
    with pytest.raises(TypeError, match="expected a Crystalformer, received CGCNN"):
        attention_maps(CGCNN().eval(), [rutile])
    with pytest.raises(ValueError, match="evaluation mode"):
        attention_maps(make_model().train(), [rutile])
    with pytest.raises(TypeError, match=r"give \[structures\] for one"):
        attention_maps(make_model(), rutile)
    with pytest.raises(ValueError, match="structure_ids: expected 1 names"):
        attention_maps(make_model(), [rutile], [])
    with pytest.raises(ValueError, match=r"atomic numbers 1 \.\. 8"):
        attention_maps(make_model(num_elements=8), [rutile])


def test_distances_of_reciprocal_heads_are_refused(make_model, rutile):
    maps = attention_maps(make_model(domain="reciprocal", num_basis=0), [rutile])
    with pytest.raises(ReciprocalHeadsError, match="pair_weights"):
        weight_by_distance(maps)
    with pytest.raises(ValueError, match="at least one attention map"):
        weight_by_distance([])
    others = attention_maps(Crystalformer(channels=16, num_blocks=1, num_heads=4).eval(), [rutile])
    with pytest.raises(ValueError, match="maps of one model"):
        mean_distance(others + maps)
