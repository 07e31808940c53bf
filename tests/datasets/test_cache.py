import pickle

import pytest
import torch
from torch_geometric.data import Data

from torch_geometric_crystal.data import from_structure
from torch_geometric_crystal.datasets.cache import CacheWarning, cache_path, read_cache, write_cache
from torch_geometric_crystal.datasets.processing import Fault


class ForeignData(Data):
    pass


@pytest.fixture
def cached(tmp_path, crystals):
    path = tmp_path / "set.pt"
    data = [from_structure(c, y=float(k), structure_id=str(k)) for k, c in enumerate(crystals)]
    write_cache(path, "key", data, ("energy",), [Fault("bad", "broken", "mend it")])
    return path


def test_what_was_written_is_read(cached, crystals):
    content = read_cache(cached, "key")
    assert content.target_names == ("energy",)
    assert content.faults == (Fault("bad", "broken", "mend it"),)
    assert content.data.structure_id == [str(k) for k in range(len(crystals))]
    assert content.slices["z"].tolist() == [0, 1, 3, 6, 10, 15, 21]


def test_no_file_is_no_cache(tmp_path):
    assert read_cache(tmp_path / "absent.pt", "key") is None


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"PK" + bytes(100)])
def test_a_damaged_file_is_not_used(cached, damage):
    cached.write_bytes(damage(cached.read_bytes()))
    with pytest.warns(CacheWarning, match="is made anew"):
        assert read_cache(cached, "key") is None


def test_a_cache_for_other_settings_is_not_used(cached):
    with pytest.warns(CacheWarning, match="other data or settings"):
        assert read_cache(cached, "another key") is None


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_a_pickle_payload_is_refused_and_not_executed(tmp_path, save):
    sentinel = tmp_path / "executed"
    save({"format": 1, "key": "key", "data": Payload(str(sentinel))}, tmp_path / "evil.pt")
    with pytest.warns(CacheWarning, match="UnpicklingError"):
        assert read_cache(tmp_path / "evil.pt", "key") is None
    assert not sentinel.exists()


@pytest.mark.parametrize("name", ["os:system", "torch_geometric_crystal.checks:check_shape", "builtins:dict"])
def test_a_class_that_is_no_data_is_refused(cached, name):
    content = torch.load(cached, weights_only=True)
    torch.save(content | {"class": name}, cached)
    with pytest.warns(CacheWarning, match="refused class"):
        assert read_cache(cached, "key") is None


def test_a_data_class_from_elsewhere_is_not_written(tmp_path):
    with pytest.raises(TypeError, match="ForeignData cannot be cached"):
        write_cache(tmp_path / "set.pt", "key", [ForeignData(x=torch.ones(1))], (), [])
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_cache_is_readable_and_safe(tmp_path):
    assert cache_path(tmp_path, "my set/../x.json", "k" * 64).name == f"my_set_.._x.json-{'k' * 24}.pt"
    assert cache_path(tmp_path, "..", "k").name == "crystals-k.pt"
