import re

import filelock
import pytest

from torch_geometric_crystal.datasets import (
    CrystalDataset,
    LockWarning,
    OnDiskCrystals,
    cached_graph_store,
    open_source,
    write_graph_store,
)
from torch_geometric_crystal.datasets.file_lock import acquire_lock
from torch_geometric_crystal.testing import small_crystals
from torch_geometric_crystal.transforms import PeriodicKNNGraph

GRAPH = PeriodicKNNGraph(4, 5.0)


def test_a_lock_is_held_until_it_is_released(tmp_path):
    path = tmp_path / "new" / ".lock"
    lock = acquire_lock(path)
    with pytest.raises(filelock.Timeout):
        acquire_lock(path, timeout=0.0)
    lock.release()
    acquire_lock(path, timeout=0.0).release()


def test_a_folder_that_cannot_be_made_is_left_to_who_writes_there(tmp_path):
    (tmp_path / "file").write_text("")
    assert acquire_lock(tmp_path / "file" / "folder" / ".lock") is None


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_folder_is_named_and_the_data_set_made(tmp_path):
    named = re.escape(f"files in {tmp_path} cannot be locked")
    with pytest.warns(LockWarning, match=f"{named} .*processes that start at once each do the same work"):
        assert len(CrystalDataset(small_crystals(), tmp_path)) == len(small_crystals())
    assert len(CrystalDataset(small_crystals(), tmp_path)) == len(small_crystals())  # needs no lock any more


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_graph_store_is_made(tmp_path):
    source = open_source(small_crystals())
    with pytest.warns(LockWarning, match="cannot be locked"):
        store = cached_graph_store(source, GRAPH, tmp_path)
    assert len(OnDiskCrystals(store.path)) == len(small_crystals())


@pytest.mark.usefixtures("no_locks")
def test_without_locks_files_that_another_writes_are_left(tmp_path):
    theirs = tmp_path / ".shard-00000.safetensors.other.tmp"
    theirs.write_text("half")
    with pytest.warns(LockWarning, match="cannot be locked"):
        write_graph_store(small_crystals(), tmp_path, GRAPH)
    assert theirs.exists()
