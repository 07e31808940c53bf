import importlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from torch_geometric_crystal.datasets import CrystalDataset, cached_graph_store, open_source
from torch_geometric_crystal.testing import small_crystals
from torch_geometric_crystal.transforms import PeriodicKNNGraph

GRAPH = PeriodicKNNGraph(4, 5.0)


@pytest.fixture
def source():
    return open_source(small_crystals())


@pytest.fixture
def writes(monkeypatch):
    """Folders that were written."""
    module = importlib.import_module("torch_geometric_crystal.datasets.cached_graph_store")
    folders, original = [], module.write_graph_store

    def write(source, folder, *args, **settings):
        folders.append(folder)
        return original(source, folder, *args, **settings)

    monkeypatch.setattr(module, "write_graph_store", write)
    return folders


def test_crystals_are_those_of_the_data_set_in_memory(source, tmp_path):
    store = cached_graph_store(source, GRAPH, tmp_path)
    dataset = CrystalDataset(source, root=tmp_path, pre_transform=GRAPH)
    for first, second in zip(store, dataset, strict=True):
        tensors = {name: value for name, value in second.to_dict().items() if isinstance(value, torch.Tensor)}
        assert all(torch.equal(first[name], value) for name, value in tensors.items())


def test_a_store_is_written_once(source, tmp_path, writes):
    for _ in range(2):
        cached_graph_store(source, GRAPH, tmp_path)
    assert len(writes) == 1


def test_other_graphs_and_other_data_have_stores_of_their_own(source, tmp_path, writes):
    cached_graph_store(source, GRAPH, tmp_path)
    cached_graph_store(source, PeriodicKNNGraph(5, 5.0), tmp_path)
    cached_graph_store(open_source(small_crystals()[:2]), GRAPH, tmp_path)
    assert len(set(writes)) == 3
    assert len(cached_graph_store(source, GRAPH, tmp_path)) == len(small_crystals())


def test_those_that_start_at_once_wait_for_the_one_that_writes(source, tmp_path, writes):
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: cached_graph_store(source, GRAPH, tmp_path, num_workers=0), range(4)))
    assert len(writes) == 1
    assert [len(store) for store in stores] == [len(small_crystals())] * 4


def test_an_interrupted_store_is_written_again(source, tmp_path, writes):
    cached_graph_store(source, GRAPH, tmp_path)
    (writes[0] / "store.json").unlink()
    assert len(cached_graph_store(source, GRAPH, tmp_path)) == len(small_crystals())
    assert writes == [writes[0]] * 2


def test_the_default_folder_is_that_of_the_cache(source, tmp_path, monkeypatch, writes):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached_graph_store(source, GRAPH)
    assert writes[0].parent == tmp_path / "torch_geometric_crystal"
