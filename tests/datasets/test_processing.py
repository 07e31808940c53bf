import multiprocessing
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from torch_geometric.data import Data
from torch_geometric.transforms import Center

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.datasets import StructureListSource, StructureWarning, processing
from torch_geometric_crystal.datasets.processing import Processed, Recipe, process, transform_crystals
from torch_geometric_crystal.transforms import PeriodicRadiusGraph

ALLOY = Structure(Lattice.cubic(3), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])


def many(number: int = 70) -> list:
    """Entries of which number 40 is disordered and number 50 has overlapping atoms."""
    rng = np.random.default_rng(0)
    structures = [Structure(np.eye(3) * 5, ["Fe", "O"], [[0, 0, 0], rng.uniform(0.3, 0.7, 3)]) for _ in range(number)]
    structures[40] = ALLOY
    structures[50] = Structure(np.eye(3) * 5, ["Fe", "O"], [[0, 0, 0], [0, 0, 0.001]])
    return list(StructureListSource(structures, targets=np.arange(number)))


def assert_equal(one: Processed, other: Processed) -> None:
    assert one.faults == other.faults
    assert one.notes == other.notes
    assert len(one.crystals) == len(other.crystals)
    for a, b in zip(one.crystals, other.crystals, strict=True):
        assert a.structure_id == b.structure_id
        assert all(torch.equal(a[key], b[key]) for key in ("z", "pos", "cell", "pbc", "y"))


RECIPE = Recipe(Center(), None, torch.float32)


def test_other_processes_give_the_same_crystals_faults_and_notes_in_the_same_order(monkeypatch):
    serial = process(many(), RECIPE, 0, skip_faults=True)
    used = []
    pooled = processing._pooled

    def observed(entries, recipe, num_workers):
        used.append((len(entries), num_workers))
        return pooled(entries, recipe, num_workers)

    monkeypatch.setattr(processing, "_pooled", observed)
    monkeypatch.setattr(processing, "_WORTH_A_POOL", 0.0)
    monkeypatch.setattr(processing, "_default_workers", lambda: 1)
    assert_equal(process(many(), RECIPE, None, skip_faults=True), serial)
    assert used == [(70 - 32, 1)]
    assert [fault.structure_id for fault in serial.faults] == ["40"]
    assert len(serial.notes) == 1
    assert "structure '50': atoms" in serial.notes[0]


def test_little_work_starts_no_process(monkeypatch):
    monkeypatch.setattr(processing, "_pooled", pytest.fail)
    process(many(), RECIPE, None, skip_faults=True)


def test_a_transform_that_cannot_be_sent_is_used_in_this_process():
    with pytest.warns(StructureWarning, match="in one process: the pre_transform or pre_filter cannot be sent"):
        result = process(many(), Recipe(lambda data: data, None, torch.float32), 2, skip_faults=True)
    assert len(result.crystals) == 69


def test_when_the_processes_die_this_one_goes_on_where_they_stopped(monkeypatch):
    def dying(entries, recipe, num_workers):
        for entry in entries[:45]:
            yield recipe(entry)
        raise BrokenProcessPool("killed")

    monkeypatch.setattr(processing, "_pooled", dying)
    with pytest.warns(StructureWarning, match=r"in one process: BrokenProcessPool: killed .*__main__"):
        result = process(many(), RECIPE, 2, skip_faults=True)
    assert_equal(result, process(many(), RECIPE, 0, skip_faults=True))


def test_a_process_that_may_start_no_other_does_the_work(monkeypatch):
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})
    with pytest.warns(StructureWarning, match="may not start others"):
        assert len(process(many(), RECIPE, 2, skip_faults=True).crystals) == 69


def test_the_first_fault_is_raised_if_faults_are_not_skipped():
    with pytest.raises(InvalidStructureError, match=r"structure '40': site 0 is disordered .*OrderDisordered"):
        process(many(), RECIPE, 0)


def test_a_failing_transform_names_the_structure():
    def broken(data: Data) -> Data:
        if data.structure_id == "3":
            raise KeyError("field")
        return data

    with pytest.raises(RuntimeError, match=r"failed on '3' \(KeyError: 'field'\)"):
        process(many(), Recipe(broken, None, torch.float32), 0, skip_faults=True)


def test_a_structure_that_a_transform_refuses_is_a_fault():
    def picky(data: Data) -> Data:
        if data.structure_id == "3":
            raise InvalidStructureError("3", "no neighbours", "use a larger cutoff")
        return data

    result = process(many()[:5], Recipe(picky, None, torch.float32), 0, skip_faults=True)
    assert result.faults == [("3", "no neighbours", "use a larger cutoff")]
    assert len(result.crystals) == 4


def test_filtered_crystals_are_neither_faults_nor_transformed():
    entries = many()[:10]
    recipe = Recipe(None, lambda data: float(data.y) >= 4, torch.float64)
    result = process(entries, recipe, 0)
    assert [data.structure_id for data in result.crystals] == ["4", "5", "6", "7", "8", "9"]
    assert result.faults == []
    assert result.crystals[0].pos.dtype == torch.float64


def crystals_in_memory() -> list[Data]:
    crystals = process(many(), RECIPE, 0, skip_faults=True).crystals
    del crystals[5].structure_id
    return crystals


def test_crystals_in_memory_are_transformed_as_a_loop_would(monkeypatch):
    crystals, transform = crystals_in_memory(), PeriodicRadiusGraph(5.0)
    expected = [transform(data) for data in crystals]
    used = []
    pooled = processing._pooled
    monkeypatch.setattr(processing, "_pooled", lambda *a: used.append(len(a[0])) or pooled(*a))
    for num_workers in (0, 2):
        graphs = transform_crystals(crystals, transform, num_workers)
        for graph, other in zip(graphs, expected, strict=True):
            assert sorted(graph.keys()) == sorted(other.keys())
            assert all(torch.equal(graph[key], other[key]) for key in sorted(other.keys()) if key != "structure_id")
            assert graph.get("structure_id") == other.get("structure_id")
    assert used == [69]
    assert all("edge_index" not in data for data in crystals)


def test_the_crystal_in_memory_that_a_transform_refuses_is_named():
    crystals = crystals_in_memory()
    crystals[3].pos[0] = float("nan")
    with pytest.raises(InvalidStructureError, match=r"structure '3': .*nan"):
        transform_crystals(crystals, PeriodicRadiusGraph(5.0), 0)


def test_closing_the_outcomes_ends_the_processes():
    results = processing.outcomes(many(), RECIPE, 1, progress=False)
    assert next(results).data.structure_id == "0"
    assert len(multiprocessing.active_children()) == 1
    results.close()
    assert multiprocessing.active_children() == []
