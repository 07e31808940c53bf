import json
from itertools import product

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from torch_geometric_crystal.data import make_crystal
from torch_geometric_crystal.nn.conv.edge_gated_conv import EdgeGatedConv
from torch_geometric_crystal.nn.models.alignn import ALIGNN
from torch_geometric_crystal.testing import (
    assert_all_invariances,
    assert_close_relative,
    assert_invariant,
    crystal_outputs,
    small_crystals,
)
from torch_geometric_crystal.transforms import InfiniteNeighborhood, LineGraph, PeriodicKNNGraph, Supercell

SMALL = {"channels": 16, "embedding_channels": 8, "num_alignn_layers": 2, "num_gcn_layers": 2}


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def linear(module, x):
    return x @ module.weight.detach().numpy().T + module.bias.detach().numpy()


def activated_norm(norm, x, training):
    mean = x.mean(axis=0) if training else norm.running_mean.numpy()
    variance = x.var(axis=0) if training else norm.running_var.numpy()
    scale, shift = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    normed = (x - mean) / np.sqrt(variance + norm.eps) * scale + shift
    return normed * sigmoid(normed)


def mlp(module, x, training):
    for map_, norm, _ in zip(*[iter(module)] * 3, strict=True):
        x = activated_norm(norm, linear(map_, x), training)
    return x


def convolution(conv, x, source, target, edges, training):
    of_source, of_target, of_value, of_skip = np.split(linear(conv.lin_node, x), 4, axis=1)
    m = of_source[source] + of_target[target] + linear(conv.lin_edge, edges)
    total, gates = np.zeros_like(of_skip), np.zeros_like(of_skip)
    np.add.at(total, target, sigmoid(m) * of_value[source])
    np.add.at(gates, target, sigmoid(m))
    new = activated_norm(conv.node_norm, of_skip + total / (gates + 1e-6), training)
    return x + new, edges + activated_norm(conv.edge_norm, m, training)


def numpy_angles(crystals):
    """Pairs of edges a -> b -> c and the cosine at b, from the places of the three atoms; all pairs are tried."""
    first, second, cosines, before = [], [], [], 0
    for data in crystals:
        pos, cell = data.pos.numpy(), data.cell[0].numpy()
        edges = list(zip(*data.edge_index.tolist(), data.edge_shift.numpy(), strict=True))
        for (one, (a, b, n)), (two, (from_b, c, m)) in product(enumerate(edges), repeat=2):
            if b == from_b:
                to_a, to_c = pos[a] + n @ cell - pos[b], pos[c] - m @ cell - pos[b]
                first.append(before + one)
                second.append(before + two)
                cosines.append(to_a @ to_c / np.linalg.norm(to_a) / np.linalg.norm(to_c))
        before += len(edges)
    return np.array(first), np.array(second), np.array(cosines)


def numpy_alignn(model, crystals, training):
    """The whole model from its definition."""
    batch = Batch.from_data_list(crystals)
    source, target = batch.edge_index.numpy()
    first, second, cosines = numpy_angles(crystals)
    x = mlp(model.atom_embedding, np.stack([model.element_features.numpy()[z - 1] for z in batch.z.tolist()]), training)
    centers = np.linspace(0.0, 8.0, 80)
    lengths = np.exp(-((batch.edge_dist.numpy()[:, None] - centers) ** 2) / (8.0 / 79))
    y = mlp(model.edge_embedding, lengths, training)
    centers = np.linspace(-1.0, 1.0, 40)
    z = mlp(model.angle_embedding, np.exp(-((cosines[:, None] - centers) ** 2) / (2.0 / 39)), training)
    for graph_conv, line_graph_conv in zip(model.graph_convs, model.line_graph_convs, strict=True):
        x, m = convolution(graph_conv, x, source, target, y, training)
        y, z = convolution(line_graph_conv, m, first, second, z, training)
    for conv in model.gcn_convs:
        x, y = convolution(conv, x, source, target, y, training)
    pooled = np.stack([x[batch.batch.numpy() == crystal].mean(axis=0) for crystal in range(len(crystals))])
    out = linear(model.out, pooled)
    return out * model.normalization.std.numpy() + model.normalization.mean.numpy(), pooled


def disturbed(model):
    """The model in float64, its norms and normalisation not those of the start, its statistics those of crystals.

    Its gates are steep and nearly closed, so that lengths and angles move the output well beyond the tolerances; with
    those of the start they hardly do.
    """
    model = model.double().train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.3)
            module.momentum = None  # one batch gives the running statistics
        if isinstance(module, EdgeGatedConv):
            module.lin_edge.weight.data *= 10.0
            module.lin_edge.bias.data -= 6.0
    model(Batch.from_data_list(graphs(model)))
    model.normalization.fit(torch.tensor([[1.0, -5.0], [2.0, 15.0]]))
    return model


@pytest.fixture
def model():
    return disturbed(ALIGNN(num_targets=2, **SMALL))


def graphs(model, dtype=torch.float64):
    transform = model.neighborhood()
    return [transform(data) for data in small_crystals(dtype)]


def test_the_default_model_has_the_published_size():
    assert sum(parameter.numel() for parameter in ALIGNN().parameters()) == 4_026_753


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_the_model_is_its_definition(model, training, dtype, rtol):
    crystals = graphs(model)
    expected_out, expected_pooled = numpy_alignn(model, crystals, training)
    batch = Batch.from_data_list(graphs(model, dtype))
    out, pooled = model.to(dtype).train(training)(batch, return_embedding=True)
    assert_close_relative(pooled, torch.from_numpy(expected_pooled), rtol)
    assert_close_relative(out, torch.from_numpy(expected_out), rtol)


def test_the_model_of_published_size_is_its_definition():
    model = disturbed(ALIGNN(num_targets=2)).eval()
    crystals = graphs(model)[:5]
    expected, _ = numpy_alignn(model, crystals, False)
    assert_close_relative(model(Batch.from_data_list(crystals)), torch.from_numpy(expected), 1e-11)


def test_the_output_does_not_depend_on_how_a_crystal_is_described(model):
    assert_all_invariances(model, small_crystals(torch.float64), rtol=1e-9)


def test_a_cutoff_that_grows_does_not_depend_on_the_cell(model):
    """The search goes out to another radius in a supercell, whose longest vector is another."""
    sparse = make_crystal([2], np.zeros((1, 3)), 9.0 * np.eye(3), (True,) * 3, dtype=torch.float64)
    long = Supercell((3, 1, 1))
    first, second = (model.neighborhood()(data).edge_cutoff.item() for data in (sparse, long(sparse)))
    assert (first, second) == (18.0, 27.0)
    assert_invariant(model, sparse, long, rtol=1e-9)


def test_ties_that_are_cut_make_the_output_depend_on_the_description(model):
    """Why the default keeps whole shells."""
    cut = model.neighborhood(ties="cut", mutual=False)
    with pytest.raises(AssertionError, match="relative error"):
        assert_all_invariances(model, small_crystals(torch.float64), rtol=1e-3, neighborhood=cut)


def test_the_default_neighborhood_is_the_authors_graph(model):
    transform = model.neighborhood()
    assert isinstance(transform, PeriodicKNNGraph)
    assert (transform.k, transform.cutoff, transform.ties) == (12, 8.0, "shell")
    assert (transform.shortage, transform.mutual) == ("grow", True)
    for data in graphs(model):
        assert torch.bincount(data.edge_index[1]).min() >= 12


def test_a_stored_line_graph_is_used(model):
    model.eval()
    plain = graphs(model)
    expected = model(Batch.from_data_list(plain))
    stored = Batch.from_data_list([LineGraph()(data) for data in plain])
    assert_close_relative(model(stored), expected, 1e-13)
    one_way = Batch.from_data_list([LineGraph(backtracking=False)(data) for data in plain])
    assert (model(one_way) - expected).abs().max() > 1e-3


def test_a_batch_made_by_hand_needs_no_pointers(model):
    transform = model.neighborhood()
    batch = Batch.from_data_list([transform(data) for data in small_crystals()[:2]])
    by_hand = Data(**{name: value for name, value in batch.to_dict().items() if name != "ptr"})
    torch.testing.assert_close(model.eval()(by_hand), model(batch))


def test_one_crystal_needs_no_batch(model):
    data = graphs(model)[0]
    model.eval()
    assert_close_relative(model(data), model(Batch.from_data_list([data])), 1e-14)


@pytest.mark.parametrize("training", [True, False])
def test_crystals_without_edges_have_finite_outputs(model, training):
    lone = small_crystals(torch.float64)[4]
    lone.pbc = torch.zeros(1, 3, dtype=torch.bool)
    lone = model.neighborhood()(lone)
    assert lone.num_edges == 0
    model.train(training)
    assert model(Batch.from_data_list([lone])).isfinite().all()
    assert model(Batch.from_data_list([lone, *graphs(model)])).isfinite().all()
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_one_crystal_can_be_trained_on(model):
    model.train()(Batch.from_data_list(graphs(model)[:1])).sum().backward()
    assert all(p.grad.isfinite().all() for name, p in model.named_parameters() if "edge_norm" not in name)


def test_only_the_norms_of_the_last_edges_and_angles_are_not_trained(model):
    """Nothing reads what these two norms give, in the authors' model as here."""
    model.train()(Batch.from_data_list(graphs(model))).square().sum().backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    norms = ("line_graph_convs.1.edge_norm", "gcn_convs.1.edge_norm")
    assert idle == {f"{norm}.{kind}" for norm in norms for kind in ("weight", "bias")}


@pytest.mark.parametrize("stored", [True, False])
def test_forces_are_those_of_finite_differences(model, stored):
    """Through lengths and angles, edges walked back included, with the line graph stored or made in the model."""
    data = graphs(model)[-1]
    data = LineGraph()(data) if stored else data
    model.eval()
    data.pos.requires_grad_()
    (gradient,) = torch.autograd.grad(model(data)[0, 1], data.pos)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 1e-2
    direction = torch.randn_like(data.pos)

    def moved(step):
        changed = data.clone()
        changed.pos = (data.pos + step * direction).detach().requires_grad_()
        return model(changed)[0, 1].item()

    step = 1e-5
    slope = (moved(step) - moved(-step)) / (2 * step)
    assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-6, abs=1e-7)


def test_angles_have_gradients_of_their_own(model):
    """Positions move the output of a model that hears nothing of lengths."""
    data = graphs(model)[-1]
    model.eval()
    with torch.no_grad():
        model.edge_embedding[0].weight.zero_()  # lengths say nothing now
    data.pos.requires_grad_()
    (gradient,) = torch.autograd.grad(model(data)[0, 1], data.pos)
    assert gradient.abs().max() > 1e-4


def test_the_cell_has_gradients(model):
    data = graphs(model)[0]
    model.eval()
    data.cell.requires_grad_()
    (gradient,) = torch.autograd.grad(model(data)[0, 1], data.cell)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 1e-4


def test_with_open_gates_the_formula_is_deaf_to_distances_between_equal_atoms():
    """Gates weigh the neighbours against each other; of equal neighbours any weights give the same mean."""
    model = ALIGNN(**SMALL).double()
    model(Batch.from_data_list(graphs(model)))
    crystals = {data.structure_id: data for data in small_crystals(torch.float64)}

    def change(name):
        wide = crystals[name].clone()
        wide.pos, wide.cell = 1.1 * wide.pos, 1.1 * wide.cell
        return (crystal_outputs(model, [wide]) - crystal_outputs(model, [crystals[name]])).abs().max().item()

    assert max(change("Cu"), change("diamond"), change("Se-long-thin")) < 1e-3 * change("TiO2-skewed")


def test_training_lowers_the_error():
    model = ALIGNN(**SMALL)
    batch = Batch.from_data_list(graphs(model, torch.float32))
    y = torch.linspace(-2.0, 3.0, batch.num_graphs).unsqueeze(-1)
    model.normalization.fit(y)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    errors = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (model(batch) - y).abs().mean()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.2 * errors[0]


def test_without_line_graph_layers_it_is_a_gated_graph_network(model):
    plain = ALIGNN(num_targets=2, **SMALL | {"num_alignn_layers": 0}).double().eval()
    model.eval()
    data = graphs(model)[0]
    assert plain(data).shape == (1, 2)
    assert len(plain.graph_convs) == len(plain.line_graph_convs) == 0


def test_the_config_makes_the_same_architecture(model):
    again = ALIGNN(**json.loads(json.dumps(model.config()))).double()
    again.load_state_dict(model.state_dict())
    assert again.config() == model.config()
    crystals = small_crystals(torch.float64)
    assert torch.equal(crystal_outputs(again, crystals), crystal_outputs(model, crystals))


def test_other_sizes_are_kept_in_the_config():
    sizes = {"num_edge_gaussians": 10, "num_angle_gaussians": 7, "num_neighbors": 6, "cutoff": 5.0}
    model = ALIGNN(3, **SMALL, **sizes)
    crystals = small_crystals()
    assert crystal_outputs(model, crystals).shape == (len(crystals), 3)
    assert model.config() == {"num_targets": 3, "level": "crystal"} | SMALL | sizes
    assert crystal_outputs(ALIGNN(**model.config()), crystals).shape == (len(crystals), 3)
    assert (model.neighborhood().k, model.neighborhood().cutoff) == (6, 5.0)


def test_reset_draws_new_weights_and_keeps_the_normalisation(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.reset_parameters()
    after = model.state_dict()
    kept = {name for name in after if torch.equal(after[name], before[name])}
    assert kept == {"normalization.mean", "normalization.std", "element_features"}


def test_a_batch_without_a_graph_is_refused_with_the_remedy(model):
    with pytest.raises(ValueError, match=r"Apply model\.neighborhood\(\) first"):
        model(Batch.from_data_list(small_crystals(torch.float64)))


def test_an_edge_of_length_0_is_refused_with_the_remedy(model):
    data = InfiniteNeighborhood(tol=1e-2)(small_crystals(torch.float64)[0])
    with pytest.raises(ValueError, match=r"received one of length 0.*Apply model\.neighborhood\(\)"):
        model(data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_targets": 0}, "num_targets: expected at least 1"),
        ({"num_alignn_layers": -1}, "num_alignn_layers: expected at least 0"),
        ({"num_gcn_layers": -1}, "num_gcn_layers: expected at least 0"),
        ({"num_edge_gaussians": 1}, "num_edge_gaussians: expected at least 2"),
        ({"num_angle_gaussians": 1}, "num_angle_gaussians: expected at least 2"),
        ({"cutoff": 0.0}, "cutoff: expected a positive distance"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        ALIGNN(**arguments)


def test_repr():
    assert repr(ALIGNN()) == (
        "ALIGNN(num_targets=1, channels=256, embedding_channels=64, num_alignn_layers=4, num_gcn_layers=4, "
        "num_edge_gaussians=80, num_angle_gaussians=40, num_neighbors=12, cutoff=8.0, level='crystal')"
    )


def lattice_crystals():
    """Crystals with many like atoms, one without, and one with a single kind of atom and edge."""
    chosen = [data for data in small_crystals(torch.float64) if data.structure_id in ("Cu", "diamond", "TiO2-skewed")]
    return [*chosen, Supercell((2, 2, 1))(chosen[0].clone()), small_crystals(torch.float64)[-1]]


@pytest.mark.parametrize("training", [True, False])
def test_merged_atoms_edges_and_angles_change_nothing(model, training):
    """Outputs, embeddings, gradients of all weights and running statistics, all but for the tolerance of lengths."""
    whole, merged = model.neighborhood(), model.neighborhood(merge_tolerance=1e-9)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    found = []
    for transform in (whole, merged):
        model.load_state_dict(start)
        model.zero_grad()
        batch = Batch.from_data_list([transform(data.clone()) for data in lattice_crystals()])
        out, pooled = model.train(training)(batch, return_embedding=True)
        (out.square().sum() + pooled.sin().sum()).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((batch.num_edges, out, pooled, gradients, {n: b.clone() for n, b in model.named_buffers()}))
    (edges, out, pooled, gradients, buffers), (fewer, *same) = found
    assert fewer < 0.5 * edges
    assert_close_relative(same[0], out, 1e-9)
    assert_close_relative(same[1], pooled, 1e-9)
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert (same[2][name] - gradient).abs().max() < 1e-9 * largest, name
    for name, buffer in buffers.items():
        torch.testing.assert_close(same[3][name], buffer, rtol=1e-9, atol=1e-9)


def test_a_crystal_of_one_kind_trains_alone_as_on_the_whole_graph(model):
    """One row of atoms that stands for four has a spread (of 0), as four like rows have."""
    crystal = Supercell((2, 2, 1))(small_crystals(torch.float64)[0].clone())
    outputs = [
        model.train()(Batch.from_data_list([model.neighborhood(merge_tolerance=tolerance)(crystal.clone())]))
        for tolerance in (None, 1e-9)
    ]
    assert_close_relative(outputs[1], outputs[0], 1e-9)


def test_merged_crystals_train_in_bfloat16():
    model = ALIGNN(**SMALL)
    outputs = []
    for tolerance in (None, 1e-4):
        transform = model.neighborhood(merge_tolerance=tolerance)
        batch = Batch.from_data_list([transform(data) for data in small_crystals()])
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(model.train()(batch))
        model.zero_grad()
        outputs[-1].sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert_close_relative(outputs[1], outputs[0].double(), 0.05)


@pytest.mark.parametrize("field", ["pos", "cell"])
def test_merged_crystals_have_no_forces(model, field):
    data = model.neighborhood(merge_tolerance=1e-4)(small_crystals(torch.float64)[0])
    data[field].requires_grad_()
    with pytest.raises(ValueError, match=r"Apply model\.neighborhood\(merge_tolerance=None\)"):
        model(data)


def test_atoms_with_targets_are_not_merged():
    with pytest.raises(ValueError, match="merge_tolerance: expected None at the level of atoms"):
        ALIGNN(level="atom", **SMALL).neighborhood(merge_tolerance=1e-4)
