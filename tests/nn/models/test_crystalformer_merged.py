"""One atom of each kind, with all edges that end at it: the same results as with all atoms."""

from functools import partial

import pytest
import torch
from torch_geometric.data import Batch

from tests.compiled_kernels import compiled_cache, with_kernels  # noqa: F401
from torch_geometric_crystal.ase import CrystalCalculator
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.prediction import tolerance_of
from torch_geometric_crystal.benchmark.run import build_run_model
from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.explain import attention_map, image_graph
from torch_geometric_crystal.nn import ALIGNN, CGCNN, Crystalformer
from torch_geometric_crystal.nn.cuda_graphs import _tensors, _with_tensors
from torch_geometric_crystal.nn.export import export_inputs
from torch_geometric_crystal.nn.graph_padding import graph_sizes, pad_graph, padded_sizes
from torch_geometric_crystal.ops import use_backend
from torch_geometric_crystal.testing import assert_close_relative, small_crystals
from torch_geometric_crystal.transforms import (
    InfiniteNeighborhood,
    MergeEquivalent,
    MergeEquivalentAtoms,
    PeriodicKNNGraph,
    RebuildEdges,
    Supercell,
)

SIZES = {"channels": 16, "num_blocks": 2, "num_heads": 4, "num_basis": 8}


def make_model(**options):
    torch.manual_seed(0)
    return Crystalformer(**SIZES | options)


def batch_of(model, tolerance, dtype=torch.float64, crystals=None):
    transform = model.neighborhood(tol=1e-3, merge_tolerance=tolerance)
    return Batch.from_data_list([transform(data.clone()) for data in crystals or small_crystals(dtype)])


def results(model, batch):
    """Outputs, pooled states, gradients and the decay's statistics of a first step of training."""
    model.zero_grad()
    out, pooled = model(batch, return_embedding=True)
    (out.square().sum() + pooled.sin().sum()).backward()
    statistics = [block.attention.decay.statistics for block in model.blocks]
    return [value.clone() for value in (out, pooled, *(p.grad for p in model.parameters()), *statistics)]


@pytest.mark.parametrize("pooling", ["mean", "sum", "max"])
def test_a_first_training_step_is_that_of_the_whole_graph(pooling):
    whole, merged = (make_model(pooling=pooling).double().train() for _ in range(2))
    plain, kept = batch_of(whole, None), batch_of(merged, 1e-9)
    assert kept.num_nodes < 0.7 * plain.num_nodes
    assert kept.num_edges < 0.7 * plain.num_edges
    for expected, actual in zip(results(whole, plain), results(merged, kept), strict=True):
        assert_close_relative(actual, expected, 1e-9)


@pytest.mark.parametrize("options", [{}, {"num_basis": 0}])
@pytest.mark.parametrize("backend", ["reference", "blocked", "cpp"])
def test_every_backend_gives_the_same_on_merged_graphs(backend, options, request):
    if backend == "cpp":
        request.getfixturevalue("with_kernels")
    model = make_model(**options).train()
    model(batch_of(model, None, torch.float32))
    expected = results(model.double(), batch_of(model, None))
    model.float()
    with use_backend(backend):
        actual = results(model, batch_of(model, 1e-4, torch.float32))
    for value, right in zip(actual, expected, strict=True):
        assert_close_relative(value, right, 2e-4)
    assert_close_relative(actual[0], expected[0], 1e-5)


def test_the_certificate_is_that_of_the_whole_graph():
    model = make_model().double()
    model.train()(batch_of(model, None))
    model.eval()
    expected = model.truncation_report(batch_of(model, None))
    assert_close_relative(model.truncation_report(batch_of(model, 1e-9)), expected, 1e-9)


def test_a_supercell_costs_no_more():
    model = make_model()
    crystal = small_crystals()[0]
    once, large = (batch_of(model, 1e-4, crystals=[data]) for data in (crystal, Supercell((3, 3, 2))(crystal.clone())))
    assert (once.num_nodes, once.num_edges) == (large.num_nodes, large.num_edges)
    assert torch.equal(large.atom_multiplicity, 18 * once.atom_multiplicity)
    assert_close_relative(model.eval()(large), model(once), 1e-6)


def test_edges_stay_sorted_by_target_source_and_distance():
    data = make_model().neighborhood(merge_tolerance=1e-4)(small_crystals()[-1])
    source, target = data.edge_index.tolist()
    keys = list(zip(target, source, data.edge_dist.tolist(), strict=True))
    assert keys == sorted(keys)
    assert "edge_shift" not in data
    assert data.log_tail.size(0) == data.num_nodes


def test_padding_leaves_merged_graphs_alone():
    model = make_model()
    graph = model.eval().gather(batch_of(model, 1e-4, torch.float32))
    padded = pad_graph(graph, padded_sizes(graph_sizes(graph)))
    number = graph.num_crystals
    assert_close_relative(model.predict(padded)[0][:number], model.predict(graph)[0], 2e-6)
    again = _with_tensors(graph, list(_tensors(graph)))
    assert torch.equal(again.multiplicity, graph.multiplicity)


@pytest.mark.filterwarnings("ignore:.*torch.autograd.function.Function.* should not be:DeprecationWarning")
def test_compiled_models_count_atoms_too():
    model = make_model().eval()
    batch = batch_of(model, 1e-4, torch.float32)
    expected = model(batch)
    compiled = torch.compile(model.predict, backend="eager", fullgraph=True)
    assert_close_relative(compiled(model.gather(batch))[0], expected, 1e-6)


@pytest.mark.parametrize("field", ["pos", "cell"])
def test_merged_atoms_have_no_forces(field):
    model = make_model()
    data = model.neighborhood(merge_tolerance=1e-4)(small_crystals()[0])
    data[field].requires_grad_()
    with pytest.raises(ValueError, match=r"Apply model\.neighborhood\(merge_tolerance=None\)"):
        model(data)


def test_what_needs_every_atom_refuses_merged_ones():
    model = make_model()
    data = model.neighborhood(merge_tolerance=1e-4)(small_crystals()[0])
    uses = (partial(export_inputs, model), partial(attention_map, model.eval()), model.atom_contributions)
    for use in uses:
        with pytest.raises(ValueError, match="expected all atoms of"):
            use(data)


@pytest.mark.parametrize("options", [{"level": "atom"}, {"domain": "multihead"}, {"domain": "auto", "num_basis": 0}])
def test_targets_of_atoms_and_waves_are_refused(options):
    with pytest.raises(ValueError, match="merge_tolerance: expected None"):
        make_model(**options).neighborhood(merge_tolerance=1e-4)


def test_models_refuse_atoms_that_were_merged_for_another():
    crystal = small_crystals()[0]
    for_attention = make_model().neighborhood(merge_tolerance=1e-4)(crystal.clone())
    for_alignn = ALIGNN().neighborhood(merge_tolerance=1e-4)(crystal.clone())
    waves = InfiniteNeighborhood(reciprocal_sigma_min=1.55)
    with_waves = MergeEquivalentAtoms()(waves(crystal.clone()))
    cases = [
        (make_model(), for_alignn, "or those that MergeEquivalentAtoms keeps"),
        (make_model(level="atom"), for_attention, "where each has its own targets"),
        (make_model(domain="multihead"), with_waves, "for sums in reciprocal space"),
        (CGCNN(), for_attention, "for CGCNN"),
        (CGCNN(), for_alignn, "for CGCNN"),
        (ALIGNN(), for_attention, "or those that MergeEquivalent keeps"),
        (ALIGNN(level="atom"), for_alignn, "where each has its own targets"),
        (RebuildEdges(), for_attention, "where edges are made anew"),
    ]
    for use, data, where in cases:
        with pytest.raises(ValueError, match=f"data: expected every atom {where}, received merged ones"):
            use(data.clone())
    with pytest.raises(ValueError, match="edges: expected 'stored' where atoms are merged"):
        make_model().neighborhood(merge_tolerance=1e-4, edges="streamed")


def test_a_crystal_without_edges_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="Apply InfiniteNeighborhood first"):
        MergeEquivalentAtoms()(small_crystals()[0])
    with pytest.raises(ValueError, match="merge_tolerance"):
        MergeEquivalentAtoms(-1.0)
    crystal = InfiniteNeighborhood()(small_crystals()[-1])
    crystal.y = torch.zeros(crystal.num_nodes, 1)
    with pytest.raises(ValueError, match="atoms with targets cannot be merged"):
        MergeEquivalentAtoms()(crystal)


def test_a_model_trained_on_merged_graphs_has_maps_and_forces_on_whole_ones():
    settings = {"merge_tolerance": 1e-4, "tol": 1e-2}
    config = RunConfig(data="x", targets=("e",), model="crystalformer", model_options=SIZES, neighborhood=settings)
    model = build_run_model(config, ["e"], ["eV/atom"])
    assert model.card.neighborhood.items() >= settings.items()
    assert tolerance_of(model) == 1e-2
    assert isinstance(image_graph(model.eval()), InfiniteNeighborhood)
    assert isinstance(CrystalCalculator(model, energy="per_atom", device="cpu").add_graph, InfiniteNeighborhood)


def test_a_merged_crystal_gets_no_other_graph():
    """Its other atoms are gone."""
    model = make_model()
    data = model.neighborhood(merge_tolerance=1e-4)(small_crystals()[-1])
    for transform in (model.neighborhood(), PeriodicKNNGraph(), Supercell((2, 1, 1))):
        with pytest.raises(InvalidStructureError, match="as it was before merging"):
            transform(data.clone())
    for transform in (MergeEquivalentAtoms(), MergeEquivalent()):
        with pytest.raises(ValueError, match="merged already"):
            transform(data.clone())
