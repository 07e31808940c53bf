import copy
import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.datasets import (
    CrystalDataset,
    OnDiskCrystals,
    StructureListSource,
    open_source,
    write_compact_store,
    write_graph_store,
)
from torch_geometric_crystal.datasets.graph_store import is_graph_store
from torch_geometric_crystal.transforms import InfiniteNeighborhood, LineGraph, PeriodicKNNGraph, PeriodicRadiusGraph

SCRIPT = Path(__file__).with_name("store_script.py")
ALLOY = Structure(Lattice.cubic(3), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])
GRAPH = PeriodicRadiusGraph(4.0)


class Angles:
    """CGCNN's neighbours with their line graph, as ALIGNN has it."""

    def __call__(self, data: Data) -> Data:
        return LineGraph()(PeriodicKNNGraph(12, 8.0)(data))


@pytest.fixture
def source(crystals):
    targets = np.stack([np.arange(6.0), [np.nan, *range(5)]], axis=1)
    return StructureListSource(crystals, targets, [f"c{k}" for k in range(6)], ["energy", "gap"])


@pytest.fixture
def store(source, tmp_path):
    write_graph_store(source, tmp_path / "store", GRAPH, shard_size=4, num_workers=0)
    return tmp_path / "store"


def assert_same(first: Data, second: Data):
    assert type(first) is type(second)
    assert set(first.to_dict()) == set(second.to_dict())
    for name, value in first.to_dict().items():
        other = second[name]
        if isinstance(value, torch.Tensor):
            assert (value.dtype, value.shape) == (other.dtype, other.shape)
            assert value.contiguous().numpy().tobytes() == other.numpy().tobytes(), name
        else:
            assert value == other


@pytest.mark.parametrize(
    "transform", [None, GRAPH, InfiniteNeighborhood(tol=1e-2), InfiniteNeighborhood(reciprocal_sigma_min=1.0), Angles()]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_items_are_those_in_memory_to_the_bit(source, tmp_path, transform, dtype):
    done = write_graph_store(source, tmp_path / "s", transform, dtype=dtype, shard_size=4, num_workers=0)
    assert done.num_structures == 6
    in_memory = CrystalDataset(source, tmp_path / "cache", pre_transform=transform, dtype=dtype, num_workers=0)
    on_disk = OnDiskCrystals(tmp_path / "s")
    assert len(on_disk) == len(in_memory) == 6
    assert on_disk.structure_ids == in_memory.structure_ids
    for index in (5, 0, 3, 4, 1, 2):
        assert_same(in_memory[index], on_disk[index])


def test_the_files_are_a_description_and_shards_without_pickles(store):
    names = sorted(path.name for path in store.iterdir() if path.name != ".lock")
    assert names == ["shard-00000.safetensors", "shard-00001.safetensors", "store.json"]
    shards = json.loads((store / "store.json").read_text())["shards"]
    assert [shard["count"] for shard in shards] == [4, 2]


def test_several_workers_read_at_random(store):
    on_disk = OnDiskCrystals(store)
    loader = DataLoader(on_disk, batch_size=2, shuffle=True, num_workers=2, generator=torch.Generator().manual_seed(0))
    batches = list(loader)
    names = [name for batch in batches for name in batch.structure_id]
    assert sorted(names) == on_disk.structure_ids
    expected = {data.structure_id: data.edge_dist.sum().item() for data in on_disk}
    for batch in batches:
        for data in batch.to_data_list():
            assert data.edge_dist.sum().item() == expected[data.structure_id]


def test_a_part_a_choice_of_targets_and_a_transform(store):
    part = OnDiskCrystals(store, "gap", transform=lambda data: data.update({"mark": torch.ones(1)}))[[4, 1]]
    assert part.structure_ids == ["c4", "c1"]
    assert part.target_names == ("gap",)
    assert [data.y.tolist() for data in part] == [[[3.0]], [[0.0]]]
    assert part[0].mark == 1
    assert len(pickle.loads(pickle.dumps(OnDiskCrystals(store)[:2]))) == 2


def test_fields_and_sizes_are_had_without_reading_the_graphs(store):
    on_disk = OnDiskCrystals(store)
    labels = on_disk.with_fields("y", "structure_id")
    assert set(labels[0].to_dict()) == {"y", "structure_id"}
    assert set(on_disk[0].to_dict()) > {"edge_index", "z"}
    assert on_disk.sizes("atoms") == [data.num_nodes for data in on_disk]
    assert on_disk[[3, 0]].sizes("edges") == [on_disk[3].num_edges, on_disk[0].num_edges]


def test_items_can_be_changed_without_changing_the_store(store):
    on_disk = OnDiskCrystals(store)
    on_disk[0].pos.zero_()
    assert on_disk[0].pos.abs().sum() > 0 or on_disk[0].num_nodes == 1
    on_disk[5].edge_dist.fill_(-1.0)
    assert (on_disk[5].edge_dist > 0).all()


@pytest.mark.parametrize("size", [1, 4])
def test_batches_are_those_of_the_items_and_can_be_changed(store, size):
    on_disk = OnDiskCrystals(store, "gap")
    batch = next(iter(DataLoader(on_disk[[4, 1, 5, 0]], batch_size=size)))
    items = [on_disk[k] for k in (4, 1, 5, 0)[:size]]
    expected = Batch.from_data_list(items)
    assert set(batch.keys()) == set(expected.keys())
    for name in ("y", "pos", "edge_index", "edge_dist", "batch"):
        torch.testing.assert_close(batch[name], expected[name], rtol=0, atol=0, equal_nan=True)
    batch.edge_dist.fill_(-1.0)
    assert torch.equal(on_disk[4].edge_dist, items[0].edge_dist)


def test_what_is_invalid_is_left_out_and_listed_or_ends_the_making(crystals, tmp_path):
    structures = [crystals[0], ALLOY, crystals[1]]
    with pytest.raises(InvalidStructureError, match="structure '1': site 0 is disordered"):
        write_graph_store(structures, tmp_path / "s", GRAPH, num_workers=0, shard_size=1)
    assert not is_graph_store(tmp_path / "s")
    done = write_graph_store(structures, tmp_path / "s", GRAPH, on_error="skip", num_workers=0, shard_size=1)
    assert [name for name, _ in done.errors] == ["1"]
    on_disk = OnDiskCrystals(tmp_path / "s")
    assert on_disk.structure_ids == ["0", "2"]
    assert on_disk.errors == done.errors
    assert on_disk[1].num_nodes == 2
    with pytest.raises(ValueError, match=r"no structures in .* can be used; the first, '0': site 0 is disordered"):
        write_graph_store([ALLOY], tmp_path / "none", GRAPH, on_error="skip", num_workers=0)


def test_a_killed_making_continues_with_what_is_done_and_gives_the_same_bytes(source, tmp_path):
    write_compact_store(tmp_path / "set.npz", [entry.load() for entry in source], ["energy", "gap"])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}

    def command(folder: str, seconds: float) -> list[str]:
        return [sys.executable, str(SCRIPT), str(tmp_path / "set.npz"), str(tmp_path / folder), str(seconds)]

    making = subprocess.Popen(command("killed", 1.0), env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "killed" / "shard-00000.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    making.send_signal(signal.SIGKILL)
    making.wait()
    kept = (tmp_path / "killed" / "shard-00000.safetensors").stat()
    with pytest.raises(FileNotFoundError, match="it was not finished: run the same command again"):
        OnDiskCrystals(tmp_path / "killed")
    for folder in ("killed", "whole"):
        subprocess.run(command(folder, 0.0), env=environment, check=True, timeout=60)
    assert (tmp_path / "killed" / "shard-00000.safetensors").stat().st_mtime_ns == kept.st_mtime_ns
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "killed" / path.name).read_bytes(), path.name


def test_a_damaged_shard_is_found_when_read_and_made_anew(source, store):
    path = store / "shard-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    on_disk = OnDiskCrystals(store)
    assert on_disk[3].structure_id == "c3"
    with pytest.raises(ValueError, match=r"shard-00001.safetensors is damaged: its size or SHA-256 is not the one in"):
        on_disk[4]
    write_graph_store(source, store, GRAPH, shard_size=4, num_workers=0)
    assert OnDiskCrystals(store)[4].structure_id == "c4"


def test_a_store_opened_by_a_relative_path_is_read_from_elsewhere(store, monkeypatch):
    monkeypatch.chdir(store.parent)
    on_disk = OnDiskCrystals(store.name)
    monkeypatch.chdir("/")
    assert on_disk[0].structure_id == "c0"
    (store / "shard-00001.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"shard-00001.safetensors is missing"):
        on_disk[4]


def test_a_shard_is_verified_once_for_all_views(store, monkeypatch):
    module = importlib.import_module("torch_geometric_crystal.datasets.graph_store")
    hashed, original = [], module.hash_file
    monkeypatch.setattr(module, "hash_file", lambda path: hashed.append(path.name) or original(path))
    on_disk = OnDiskCrystals(store)
    views = [on_disk, on_disk.index_select([0, 5]), on_disk.with_fields("y"), copy.copy(on_disk)]
    for view in views:
        assert [crystal.y.shape for crystal in view]
    assert sorted(hashed) == sorted(path.name for path in store.glob("*.safetensors"))
    assert pickle.loads(pickle.dumps(on_disk))[0].structure_id == "c0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged .JSONDecodeError"),
        ("{}", "is damaged .KeyError"),
        ('{"format": "other"}', "has format 'other'"),
    ],
)
def test_a_damaged_description_is_named(store, text, message):
    (store / "store.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        OnDiskCrystals(store)


def test_a_class_of_another_package_is_never_loaded(store):
    index = json.loads((store / "store.json").read_text())
    (store / "store.json").write_text(json.dumps(index | {"class": "subprocess:Popen"}))
    with pytest.raises(ValueError, match="refused class"):
        OnDiskCrystals(store)


def test_wrong_places_are_refused(source, store, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such store"):
        OnDiskCrystals(tmp_path / "absent")
    with pytest.raises(ValueError, match="target: 'volume' is not in"):
        OnDiskCrystals(store, "volume")
    with pytest.raises(ValueError, match=r"is a graph store, .* open it with OnDiskCrystals"):
        open_source(store)
    with pytest.raises(ValueError, match="holds a graph store of other data, settings or version"):
        write_graph_store(source, store, PeriodicRadiusGraph(3.0), shard_size=4, num_workers=0)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds other files .a.txt.: a graph store needs a folder of its own"):
        write_graph_store(source, tmp_path / "notes")
    with pytest.raises(ValueError, match="is a file: a graph store is a folder"):
        write_graph_store(source, tmp_path / "notes" / "a.txt")
    with filelock.FileLock(store / ".lock"), pytest.raises(ValueError, match="is being written by another process"):
        write_graph_store(source, store, GRAPH, shard_size=4)


def test_graphs_of_another_transform_are_refused_with_both_named(store):
    OnDiskCrystals(store).check_transform(PeriodicRadiusGraph(4.0))
    with pytest.raises(
        ValueError, match=r"made by PeriodicRadiusGraph\(cutoff=4.0\), .* PeriodicRadiusGraph\(cutoff=3.0\)"
    ):
        OnDiskCrystals(store).check_transform(PeriodicRadiusGraph(3.0))


def test_fields_other_than_tensors_and_texts_are_refused(source, tmp_path):
    with pytest.raises(TypeError, match="field 'extra' is a dict: a graph store keeps tensors and texts alone"):
        write_graph_store(source, tmp_path / "s", _with_dictionary, num_workers=0)


def _with_dictionary(data: Data) -> Data:
    data.extra = {"a": 1}
    return data
