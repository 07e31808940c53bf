"""A block as one call of the C++ kernels: the parts' results, and the parts themselves wherever they differ."""

import copy

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch_geometric.data import Batch

from tests.compiled_kernels import compiled_cache, with_kernels  # noqa: F401
from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.nn.fused_block import can_run_fused, run_fused
from torch_geometric_crystal.ops import group_edges, use_backend
from torch_geometric_crystal.testing import assert_close_relative, small_crystals

pytestmark = pytest.mark.usefixtures("with_kernels")

SIZES = [
    {"channels": 128, "num_heads": 8, "num_basis": 64},
    {"channels": 24, "num_heads": 3, "num_basis": 7},
    {"channels": 24, "num_heads": 12, "num_basis": 0},
]


def make(seed=0, **options):
    """A model of one block with weights that matter, its graph, and random states."""
    torch.manual_seed(seed)
    model = Crystalformer(**{"channels": 16, "num_blocks": 1, "num_heads": 2, "num_basis": 8} | options)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
        elif name.endswith("value_encoding"):
            parameter.data.mul_(8.0)
    transform = model.neighborhood(tol=1e-2)
    batch = Batch.from_data_list([transform(data) for data in small_crystals()])
    model(batch)  # takes the statistics
    model.train()
    return model, model.gather(batch), torch.randn(batch.num_nodes, model.blocks[0].expand.in_features)


def gradients(block, out, x, create_graph=False):
    names, weights = zip(*block.named_parameters(), strict=True)
    direction = torch.linspace(-1.0, 2.0, out.numel(), dtype=out.dtype).view_as(out)
    found = torch.autograd.grad((out * direction).sum(), [x, *weights], create_graph=create_graph)
    return dict(zip(("x", *names), found, strict=True))


def in_double(block, graph):
    return copy.deepcopy(block).double(), graph._replace(
        neighborhood=graph.neighborhood._replace(dist=graph.neighborhood.dist.double())
    )


@pytest.mark.parametrize("options", SIZES)
@pytest.mark.parametrize("isolated", [False, True])
def test_states_statistics_and_every_gradient_are_those_of_the_reference(options, isolated):
    model, graph, x = make(**options)
    if isolated:  # an atom without edges
        lonely = torch.zeros(1, dtype=torch.long)
        hood = graph.neighborhood
        grown = {
            name: torch.cat([getattr(hood, name), getattr(hood, name)[-1:]])
            for name in ("row_ptr", "row_pair_ptr", "column_ptr")
        }
        graph = graph._replace(neighborhood=hood._replace(**grown))
        x = torch.cat([x, x[lonely]])
    block = model.blocks[0]
    x.requires_grad_()
    assert can_run_fused(block, x, graph)
    out, statistics = run_fused(block, x, graph)
    found = gradients(block, out, x)

    judge, wide_graph = in_double(block, graph)
    wide = x.detach().double().requires_grad_()
    with use_backend("reference"):
        expected, expected_statistics = judge.run_parts(wide, wide_graph)
    wanted = gradients(judge, expected, wide)
    assert_close_relative(out, expected.float(), rtol=1e-5)
    for name in ("query", "key", "rho"):
        assert_close_relative(getattr(statistics, name), getattr(expected_statistics, name).float(), rtol=1e-5)
    filled = ~expected_statistics.lse.isneginf()
    assert torch.equal(statistics.lse.isneginf(), ~filled)
    assert_close_relative(statistics.lse[filled], expected_statistics.lse[filled].float(), rtol=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in wanted.items():
        assert float((found[name] - gradient).abs().max()) <= 1e-4 * max(float(gradient.abs().max()), 1e-3 * largest), (
            name
        )


def test_the_model_runs_its_blocks_fused_and_predicts_the_same(monkeypatch):
    model, graph, _ = make()
    ran = []

    def counted(*arguments):
        ran.append(arguments)
        return run_fused(*arguments)

    monkeypatch.setattr("torch_geometric_crystal.nn.models.crystalformer.run_fused", counted)
    fused = model.predict(graph)[0]
    assert len(ran) == 1
    with use_backend("blocked"):
        blocked = model.predict(graph)[0]
    assert len(ran) == 1
    assert_close_relative(fused, blocked, rtol=1e-5)


def test_statistics_do_not_depend_on_the_number_of_threads():
    model, graph, x = make(channels=128, num_heads=8, num_basis=64)
    x.requires_grad_()
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            rho_and_lse = run_fused(model.blocks[0], x, graph)[1]
            results.append((rho_and_lse.rho, rho_and_lse.lse))
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert_close_relative(one, two, rtol=1e-6)


def test_second_derivatives_are_those_of_the_parts():
    model, graph, x = make()
    block = model.blocks[0]
    x.requires_grad_()
    results = []
    for run in (run_fused, type(block).run_parts):
        first = gradients(block, run(block, x, graph)[0], x, create_graph=True)
        penalty = sum(gradient.square().sum() for gradient in first.values())
        results.append(torch.autograd.grad(penalty, [x, block.expand.weight, block.attention.qkv.weight]))
    for fused, parts in zip(*results, strict=True):
        assert_close_relative(fused, parts, rtol=1e-4)


@pytest.mark.parametrize("chosen", ["embedding.weight", None])
def test_second_derivatives_are_those_of_the_weights_that_were_given(chosen):
    """As meta-learning gives them: through ``functional_call``, here beside strided ones."""
    model, _, _ = make()
    model.eval()
    batch = Batch.from_data_list([model.neighborhood(tol=1e-2)(data) for data in small_crystals()[:3]])
    given = {name: 1.5 * parameter.detach() for name, parameter in model.named_parameters()}
    given["blocks.0.expand.weight"] = given["blocks.0.expand.weight"].T.contiguous().T
    wanted = [given[name].requires_grad_() for name in given if chosen in (name, None)]
    out = torch.func.functional_call(model, given, (batch,)).sum()
    plain = torch.autograd.grad(out, wanted, retain_graph=True, allow_unused=True)
    recorded = torch.autograd.grad(out, wanted, create_graph=True, allow_unused=True)
    for one, two in zip(plain, recorded, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            assert_close_relative(two, one, rtol=1e-4)


def test_a_frozen_weight_gets_no_gradient():
    model, graph, x = make()
    block = model.blocks[0]
    block.expand.weight.requires_grad_(False)
    assert can_run_fused(block, x, graph)
    block(x, graph)[0].sum().backward()
    assert block.expand.weight.grad is None
    assert block.contract.weight.grad is not None


def hook(part):
    return part.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    "name", ["attention", "attention.qkv", "attention.out", "attention.decay", "expand", "contract"]
)
def test_a_part_with_a_hook_is_run_itself(name):
    model, graph, x = make()
    part, called = model.blocks[0].get_submodule(name), []
    if name == "attention":  # its own forward is not what a block calls, but it may be looked at all the same
        hook(part)
    else:
        part.register_forward_hook(lambda *_: called.append(name))
    assert not can_run_fused(model.blocks[0], x, graph)
    model.blocks[0](x, graph)
    assert called == [] if name == "attention" else called == [name]


def test_parts_run_where_the_kernels_cannot_replace_them():
    model, graph, x = make()
    block = model.blocks[0]
    assert can_run_fused(block, x, graph)
    moving = graph._replace(
        neighborhood=graph.neighborhood._replace(dist=graph.neighborhood.dist.clone().requires_grad_())
    )
    assert not can_run_fused(block, x, moving)
    assert not can_run_fused(block, x.double(), graph)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not can_run_fused(block, x, graph)
    with use_backend("blocked"):
        assert not can_run_fused(block, x, graph)
    block.expand = nn.Sequential(block.expand)
    assert not can_run_fused(block, x, graph)


def test_an_attention_in_its_place_may_take_another_graph():
    class Other(nn.Module):
        """Attends to what it calls a neighborhood."""

        def attend(self, x, neighborhood, waves, blocks):
            return neighborhood * x, None

    model, graph, x = make()
    block = model.blocks[0]
    block.attention = Other()
    out, statistics = block(x, graph._replace(neighborhood=2.0))
    assert torch.equal(out, block.contract(block.expand(3 * x).relu()) + 3 * x)
    assert statistics is None


def test_the_first_batch_in_training_runs_the_parts_which_take_its_statistics():
    model, graph, x = make()
    model.blocks[0].attention.decay.reset_parameters()
    assert not can_run_fused(model.blocks[0], x, graph)
    model.blocks[0](x, graph)
    assert can_run_fused(model.blocks[0], x, graph)


@pytest.mark.parametrize("options", [{"domain": "multihead"}, {"domain": "reciprocal", "num_basis": 0}])
def test_heads_in_reciprocal_space_run_the_parts(options):
    model, graph, x = make(**options)
    assert not can_run_fused(model.blocks[0], x, graph)


def test_a_compiled_block_has_the_kernels_as_nodes_of_its_graph():
    model, graph, x = make()
    block, seen = model.blocks[0], []

    def look(graph_module, _):
        seen.extend(str(node.target) for node in graph_module.graph.nodes)
        return make_boxed_func(graph_module.forward)

    torch._dynamo.reset()
    x.requires_grad_()
    backend = aot_autograd(fw_compiler=look, bw_compiler=look)
    compiled = torch.compile(lambda x: block(x, graph)[0], fullgraph=True, backend=backend)
    found = gradients(block, compiled(x), x)
    expected = gradients(block, block(x, graph)[0], x)
    torch._dynamo.reset()
    assert any("infinite_attention_node" in target for target in seen)
    assert any("torch_geometric_crystal_cpp.infinite_attention_backward" in target for target in seen)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert_close_relative(found[name] / largest, gradient / largest, rtol=1e-4)


def test_gradients_of_very_many_like_atoms_do_not_lose_digits():
    number = 60_000
    model, graph, x = make()
    alone = torch.arange(number)
    many = graph._replace(neighborhood=group_edges(torch.stack([alone, alone]), torch.zeros(number), number))
    x = x[:1].expand(number, -1).clone().requires_grad_()
    block = model.blocks[0]
    assert can_run_fused(block, x, many)
    out, _ = run_fused(block, x, many)
    found = torch.autograd.grad(out.sum(), list(block.parameters()), allow_unused=True)
    judge, wide = in_double(block, many)
    expected = torch.autograd.grad(judge.run_parts(x.double(), wide)[0].sum(), list(judge.parameters()))
    for (name, _), one, other in zip(block.named_parameters(), found, expected, strict=True):
        if other.norm() > 1e-6 * number:  # with one neighbour, itself, the softmax has no gradient
            assert (one - other).norm() / other.norm() < 2e-5, name


def test_a_model_cast_to_float_runs_as_before():
    """`Module.float` casts the decay's statistics, too, which the kernels take in double precision."""
    torch.manual_seed(0)
    model = Crystalformer(channels=16, num_blocks=1, num_heads=4, num_basis=8).train()
    batch = Batch.from_data_list([model.neighborhood(tol=1e-2)(data) for data in small_crystals()])
    model(batch)
    expected = model(batch)
    assert_close_relative(model.float()(batch), expected, 1e-6)
