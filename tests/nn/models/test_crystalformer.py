"""Crystalformer: published sizes, variants, derivatives, checkpoints of the authors, its door."""

import pytest
import torch
from torch_geometric.data import Batch

from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.nn import crystal_graph as crystal_graph_module
from torch_geometric_crystal.ops import use_backend
from torch_geometric_crystal.testing import assert_close_relative, small_crystals

SMALL = {"channels": 16, "num_blocks": 2, "num_heads": 4, "num_basis": 8}


def batch_for(model, crystals=None, **options):
    transform = model.neighborhood(**{"tol": 1e-2} | options)
    return Batch.from_data_list([transform(data) for data in crystals or small_crystals()[:4]])


def test_default_model_has_the_published_size():
    assert sum(parameter.numel() for parameter in Crystalformer().parameters()) == 853_505


@pytest.mark.parametrize(
    ("domain", "num_basis"),
    [("real", 8), ("real", 0), ("reciprocal", 8), ("multihead", 8), ("multihead", 0), ("alternating", 8)],
)
def test_every_variant_trains_and_is_rebuilt_from_its_config(domain, num_basis):
    model = Crystalformer(num_targets=2, **SMALL | {"domain": domain, "num_basis": num_basis})
    batch = batch_for(model)
    assert ("edge_index" in batch) == (domain != "reciprocal")
    assert ("wave_vector" in batch) == (domain != "real")
    out, embedding = model(batch, return_embedding=True)
    assert out.shape == (4, 2)
    assert embedding.shape == (4, 16)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    copy = Crystalformer(**model.config())
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy.eval()(batch), model.eval()(batch))
    assert str(copy) == str(model)
    assert f"domain='{domain}'" in str(model)


def test_domain_of_each_block_can_be_given():
    model = Crystalformer(**SMALL | {"domain": ["multihead", "reciprocal"]})
    assert [block.attention.domain for block in model.blocks] == ["multihead", "reciprocal"]
    with pytest.raises(ValueError, match="domain: expected 2 domains, one for each block"):
        Crystalformer(**SMALL | {"domain": ["real"]})
    with pytest.raises(ValueError, match="domain: expected one of"):
        Crystalformer(**SMALL | {"domain": "reci"})


def test_fast_backend_agrees_with_reference_in_output_and_parameter_gradients():
    torch.manual_seed(0)
    model = Crystalformer(**SMALL | {"domain": "multihead"})
    batch = batch_for(model)
    model(batch)
    results = []
    for backend in ("blocked", "reference"):
        with use_backend(backend):
            out = model(batch)
            results.append([out, *torch.autograd.grad(out.sum(), list(model.parameters()))])
    for fast, plain in zip(*results, strict=True):
        assert_close_relative(fast, plain, rtol=1e-4)


@pytest.mark.parametrize("domain", ["real", "multihead"])
def test_forces_and_stress_agree_with_finite_differences(domain):
    torch.manual_seed(0)
    model = Crystalformer(**SMALL | {"domain": domain}).double().eval()
    data = batch_for(model, [small_crystals(torch.float64)[-1]])
    direction = torch.randn_like(data.pos)
    strain = torch.randn(3, 3, dtype=torch.float64) * 0.1

    def energy(pos, cell):
        moved = data.clone()
        moved.pos, moved.cell = pos, cell
        return model(moved).sum()

    def along(step):
        deformation = torch.eye(3, dtype=torch.float64) + step * strain
        return (data.pos + step * direction) @ deformation, data.cell @ deformation

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(energy(*along(step)), step)
    h = 1e-4
    pos, cell = (tensor.detach().requires_grad_() for tensor in along(torch.tensor(h, dtype=torch.float64)))
    up = energy(pos, cell)
    down = energy(*(tensor.detach().requires_grad_() for tensor in along(torch.tensor(-h, dtype=torch.float64))))
    assert slope.item() == pytest.approx(((up - down) / (2 * h)).item(), rel=1e-5)


def test_training_on_forces_reaches_every_parameter():
    torch.manual_seed(0)
    model = Crystalformer(**SMALL).double()
    batch = batch_for(model, small_crystals(torch.float64)[-2:])
    batch.pos.requires_grad_()
    energy = model(batch).sum()
    (forces,) = torch.autograd.grad(energy, batch.pos, create_graph=True)
    gradients = torch.autograd.grad(forces.square().sum(), list(model.parameters()), allow_unused=True)
    without = [name for (name, _), grad in zip(model.named_parameters(), gradients, strict=True) if grad is None]
    assert without == ["head.out.bias"]
    assert all(grad.isfinite().all() for grad in gradients if grad is not None)


def test_gradient_checkpointing_changes_nothing_but_memory():
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = Crystalformer(**SMALL)
        model.gradient_checkpointing = checkpointing
        out = model(batch_for(model))
        results.append([out, *torch.autograd.grad(out.sum(), list(model.parameters()))])
        assert all(float(block.attention.decay.statistics[0]) != 0 for block in model.blocks)
    assert all(torch.equal(plain, checkpointed) for plain, checkpointed in zip(*results, strict=True))


def test_atom_contributions_sum_to_the_output_in_physical_units():
    model = Crystalformer(num_targets=2, **SMALL).eval()
    model.normalization.fit(torch.tensor([[1.0, 10.0], [3.0, 50.0], [4.0, 20.0]]))
    batch = batch_for(model)
    parts = model.atom_contributions(batch)
    summed = torch.zeros(4, 2).index_add(0, batch.batch, parts)
    assert_close_relative(summed, model(batch), rtol=1e-5)


def test_single_crystal_equals_batch_of_one():
    model = Crystalformer(**SMALL).eval()
    data = model.neighborhood()(small_crystals()[0])
    assert torch.equal(model(data), model(Batch.from_data_list([data])))


def test_results_do_not_depend_on_the_size_of_what_is_prepared(monkeypatch):
    model = Crystalformer(**SMALL).eval()
    batch = batch_for(model)
    expected = model(batch)
    monkeypatch.setattr(crystal_graph_module, "prepare_row_blocks", lambda *_: None)
    assert torch.equal(model(batch), expected)


def test_initialisation_has_the_papers_scales():
    torch.manual_seed(0)
    model = Crystalformer(channels=256, num_blocks=4)
    assert model.embedding.weight.detach().std().item() == pytest.approx(256**-0.5 * 36**-0.25, rel=0.03)
    block = model.blocks[0]
    gain = 0.67 * 4**-0.25
    for weight, expected in [
        (block.attention.out.weight, gain * (2 / 512) ** 0.5),
        (block.attention.qkv.weight[:256], (2 / 512) ** 0.5),
        (block.attention.qkv.weight[512:], gain * (2 / 512) ** 0.5),
        (block.expand.weight, gain * (2 / 1280) ** 0.5),
        (block.contract.weight, gain * (2 / 1280) ** 0.5),
        (block.attention.decay.weight, 32**-0.5),
    ]:
        assert weight.detach().std().item() == pytest.approx(expected, rel=0.08)
    assert all((linear.bias == 0).all() for linear in (block.attention.qkv, block.attention.out, block.expand))


def test_batch_without_the_graph_names_the_remedy():
    data = Batch.from_data_list(small_crystals()[:2])
    with pytest.raises(ValueError, match=r"edge_index and edge_dist; apply model.neighborhood\(\) to each crystal"):
        Crystalformer(**SMALL)(data)
    with pytest.raises(ValueError, match=r"wave_vector and num_wave_vectors; apply model.neighborhood\(\)"):
        Crystalformer(**SMALL | {"domain": "reciprocal"})(data)


def test_element_beyond_the_embedding_names_the_remedy():
    model = Crystalformer(**SMALL)
    batch = batch_for(model)
    batch.z[0] = 100
    with pytest.raises(ValueError, match=r"data.z: expected atomic numbers 1 .. 98 .*num_elements=118"):
        model(batch)
    assert Crystalformer(num_elements=118, **SMALL)(batch).isfinite().all()


def test_report_without_the_certificate_names_the_transform():
    model = Crystalformer(**SMALL)
    batch = batch_for(model)
    del batch.log_tail
    with pytest.raises(ValueError, match="log_tail and edge_cutoff, which InfiniteNeighborhood writes"):
        model.truncation_report(batch)
