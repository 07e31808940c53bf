"""domain="auto": one function, whichever domain each crystal is summed in, and the cheaper one is chosen."""

import statistics
import time

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from torch_geometric_crystal.data import make_crystal
from torch_geometric_crystal.nn import Crystalformer, PeriodicInfiniteAttention
from torch_geometric_crystal.ops import use_backend
from torch_geometric_crystal.transforms import infinite_neighborhood

PERIODIC = (True, True, True)
COPPER = np.array([[0.0, 1.8, 1.8], [1.8, 0.0, 1.8], [1.8, 1.8, 0.0]])


def small_model(dtype=torch.float64, **options):
    """Two small blocks whose states and widths matter: larger weights than at first, rho from rho_min to rho_max."""
    torch.manual_seed(0)
    settings = {"channels": 16, "num_blocks": 2, "num_heads": 2, "num_basis": 0, "domain": "auto", "rho_max": 2.0}
    model = Crystalformer(**settings | options)
    model.embedding.weight.data.mul_(10)
    for block in model.blocks:
        block.attention.decay.statistics.copy_(torch.tensor([12.0, 0.3]))
    return model.to(dtype).eval()


def copper(copies=(1, 1, 1), dtype=torch.float64):
    """The face-centred cell of one atom, or a supercell of it."""
    cells = np.stack(np.meshgrid(*map(np.arange, copies), indexing="ij"), -1).reshape(-1, 3)
    cell = COPPER * np.array(copies)[:, None]
    return make_crystal([29] * len(cells), cells @ COPPER, cell, PERIODIC, structure_id="Cu", dtype=dtype)


def rattled():
    pos = np.array([[0.1, 0.0, 0.2], [1.6, 1.5, 1.2], [0.3, 2.1, 3.0]])
    cell = np.array([[3.1, 0.2, 0.0], [0.4, 3.6, 0.1], [-0.3, 0.5, 4.2]])
    return make_crystal([3, 8, 14], pos, cell, PERIODIC, structure_id="rattled", dtype=torch.float64)


def graphs(model, crystals, monkeypatch=None, domain=None, **options):
    """The crystals with the graph that is chosen, or with that of one domain."""
    if domain is None:
        return [model.neighborhood(**options)(data.clone()) for data in crystals]
    with monkeypatch.context() as patch:
        patch.setattr(infinite_neighborhood, "cheaper_domain", lambda *args: domain)
        return graphs(model, crystals, **options)


def is_real(graph):
    return graph.edge_index.size(1) > 0


def output_and_gradients(model, crystals):
    """Output, and gradients to positions, cells and every weight."""
    batch = Batch.from_data_list(crystals)
    batch.pos.requires_grad_()
    batch.cell.requires_grad_()
    out = model(batch)
    wanted = [batch.pos, batch.cell, *model.parameters()]
    grads = torch.autograd.grad(out.square().sum(), wanted, allow_unused=True)
    return [out.detach(), *(grad for grad in grads if grad is not None)]


def assert_same(first, second, tol):
    for a, b in zip(first, second, strict=True):
        assert float((a - b).abs().max()) <= tol * max(1e-3, float(b.abs().max()))


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_both_domains_and_their_mix_are_the_same_function_to_the_tolerance(real_crystals, monkeypatch, tol):
    model = small_model()
    crystals = [copper(), rattled(), *real_crystals(8, most_atoms=8)]
    for data in crystals:
        data.y = data.structure_id = None
    chosen = graphs(model, crystals, tol=tol)
    assert {is_real(graph) for graph in chosen} == {True, False}
    real = graphs(model, crystals, monkeypatch, "real", tol=tol)
    reciprocal = graphs(model, crystals, monkeypatch, "reciprocal", tol=tol)
    assert all(map(is_real, real))
    assert not any(map(is_real, reciprocal))
    auto = output_and_gradients(model, chosen)
    assert len(auto) > 20
    _, widths = model.blocks[0](model.embedding(chosen[-1].z - 1), model.gather(chosen[-1]))
    assert widths.rho.max().item() == model.blocks[0].attention.rho_max
    assert widths.rho.min().item() < 0.8
    assert float(auto[1].abs().max()) > 1e-3  # there are forces to compare
    assert_same(auto, output_and_gradients(model, real), 30 * tol)
    assert_same(auto, output_and_gradients(model, reciprocal), 30 * tol)
    with torch.no_grad():
        outputs = [model(Batch.from_data_list(batch)) for batch in (chosen, real, reciprocal)]
    assert_same(outputs[:1] * 2, outputs[1:], 3 * tol)


def test_below_the_bound_it_is_the_model_in_real_space():
    model = small_model(rho_max=50.0)
    plain = small_model(domain="real")
    plain.load_state_dict(model.state_dict())
    data = plain.neighborhood()(rattled())
    graph = model.neighborhood()(rattled())
    assert is_real(graph)  # narrow Gaussians need many waves
    torch.testing.assert_close(model(graph), plain(data), rtol=1e-12, atol=0)
    bounded = small_model(rho_max=1.1)
    bounded.load_state_dict(model.state_dict())
    assert not torch.allclose(bounded(bounded.neighborhood()(rattled())), plain(data), rtol=1e-4)


def test_a_supercell_in_the_other_domain_has_the_same_output():
    model = small_model()
    (cell, supercell) = graphs(model, [copper(), copper((3, 3, 2))], tol=1e-6)
    assert (is_real(cell), is_real(supercell)) == (False, True)
    torch.testing.assert_close(model(cell), model(supercell), rtol=1e-5, atol=1e-6)


def test_a_crystal_does_not_depend_on_its_batch():
    model = small_model()
    chosen = graphs(model, [copper(), copper((3, 3, 2)), rattled()])
    together = model(Batch.from_data_list(chosen))
    alone = torch.cat([model(graph) for graph in chosen])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


def test_the_report_bounds_both_kinds_of_crystals():
    model = small_model()
    chosen = graphs(model, [copper(), copper((3, 3, 2)), rattled()], tol=1e-4)
    assert {is_real(graph) for graph in chosen} == {True, False}
    report = model.truncation_report(Batch.from_data_list(chosen))
    assert bool(((report > 0) & (report < 1e-3)).all())
    for bound, graph in zip(report, chosen, strict=True):
        if not is_real(graph):
            assert bound == graph.wave_bound


def test_every_backend_gives_the_same_mix():
    model = small_model()
    batch = Batch.from_data_list(graphs(model, [copper(), copper((2, 2, 3))]))
    expected = model(batch)
    with use_backend("reference"):
        torch.testing.assert_close(model(batch), expected, rtol=1e-10, atol=1e-12)


def test_config_and_weights_make_the_model_again():
    model = small_model(rho_max=3.0)
    twin = Crystalformer(**model.config()).double().eval()
    twin.load_state_dict(model.state_dict())
    assert twin.config()["rho_max"] == 3.0
    assert repr(twin.neighborhood(tol=1e-4)) == repr(model.neighborhood(tol=1e-4))
    graph = twin.neighborhood()(copper())
    assert torch.equal(model(graph), twin(graph))


def test_attention_weights_are_those_of_the_edges_and_the_unfused_path_agrees():
    model = small_model()
    batch = Batch.from_data_list(graphs(model, [copper(), copper((3, 3, 2))]))
    attention, graph = model.blocks[0].attention, model.gather(batch)
    x = model.embedding(batch.z - 1)
    unfused, (_, weights) = attention(x, batch.edge_index, batch.edge_dist, graph.waves, return_attention_weights=True)
    fused = attention(x, batch.edge_index, batch.edge_dist, graph.waves)
    torch.testing.assert_close(unfused, fused, rtol=1e-10, atol=1e-12)
    assert weights.size(0) == batch.num_edges


def test_door():
    with pytest.raises(ValueError, match="num_basis: expected 0 where domain is 'auto'"):
        PeriodicInfiniteAttention(8, 8, heads=2, domain="auto")
    with pytest.raises(ValueError, match="rho_max: expected a number above 1"):
        PeriodicInfiniteAttention(8, 8, heads=2, num_basis=0, domain="auto", rho_max=1.0)
    with pytest.raises(ValueError, match="domain: expected 'auto' in all blocks or in none"):
        Crystalformer(num_basis=0, num_blocks=2, domain=["auto", "real"])
    conv = PeriodicInfiniteAttention(8, 8, heads=2, num_basis=0, domain="auto")
    edge_index, edge_dist = torch.zeros(2, 1, dtype=torch.long), torch.zeros(1)
    with pytest.raises(ValueError, match="waves: expected wave vectors"):
        conv(torch.zeros(1, 8), edge_index, edge_dist)


def seconds(model, graph, copies):
    """Processor time of forward and backward of one attention layer on `copies` of a crystal."""
    graph = model.gather(Batch.from_data_list([graph.clone() for _ in range(copies)]))
    x = torch.randn(len(graph.z), 64, requires_grad=True)
    start = time.process_time()
    out, _ = model.blocks[0].attention.attend(x, graph.neighborhood, graph.waves, graph.blocks)
    out.sum().backward()
    return time.process_time() - start


@pytest.mark.parametrize(("copies", "tol"), [((1, 1, 1), 1e-6), ((4, 4, 3), 1e-3)], ids=["one atom", "large cell"])
def test_the_domain_that_is_chosen_is_the_faster_one(monkeypatch, copies, tol):
    """Clear cases: the factors are about two each."""
    model = small_model(torch.float32, channels=64, num_heads=4)
    crystal = copper(copies, torch.float32)
    repeats = 256 // crystal.num_nodes
    domains = ("real", "reciprocal")
    made = {domain: graphs(model, [crystal], monkeypatch, domain, tol=tol)[0] for domain in domains}
    chosen = domains[0] if is_real(graphs(model, [crystal], tol=tol)[0]) else domains[1]
    assert chosen == ("reciprocal" if copies == (1, 1, 1) else "real")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with use_backend("blocked"):
            times = [[seconds(model, made[domain], repeats) for domain in domains] for _ in range(7)]
    finally:
        torch.set_num_threads(threads)
    real, reciprocal = (statistics.median(column) for column in zip(*times, strict=True))
    assert min(real, reciprocal) == (real if chosen == "real" else reciprocal)
