import errno
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.datasets import (
    CacheWarning,
    CrystalDataset,
    Elastic2015,
    StructureListSource,
    StructureWarning,
    write_compact_store,
)
from torch_geometric_crystal.datasets.readers.structure_list import StructureListSource as Listed

SCRIPT = Path(__file__).with_name("cache_script.py")
ALLOY = Structure(Lattice.cubic(3), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])


class Shift(BaseTransform):
    """Adds a constant to the positions and counts its calls. Its repr, PyG's default, does not tell the constant."""

    calls = 0

    def __init__(self, amount: float):
        self.amount = amount

    def forward(self, data: Data) -> Data:
        Shift.calls += 1
        data.pos = data.pos + self.amount
        return data


@pytest.fixture(autouse=True)
def _calls():
    Shift.calls = 0


@pytest.fixture
def source(crystals) -> StructureListSource:
    return Listed(crystals, np.arange(6.0), [f"c{k}" for k in range(6)], "energy")


def test_items_are_crystals_with_targets_and_names(source, tmp_path):
    dataset = CrystalDataset(source, tmp_path)
    assert len(dataset) == 6
    assert dataset.target_names == ("energy",)
    assert dataset.structure_ids == [f"c{k}" for k in range(6)]
    assert dataset[3].y.tolist() == [[3.0]]
    assert dataset[3].structure_id == "c3"
    assert dataset[3].num_nodes == 4
    assert dataset.errors == []
    assert dataset.processed_dir == str(tmp_path)


def test_a_loader_makes_batches(source, tmp_path):
    batch = next(iter(DataLoader(CrystalDataset(source, tmp_path), batch_size=6)))
    assert batch.cell.shape == (6, 3, 3)
    assert batch.structure_id == [f"c{k}" for k in range(6)]
    assert batch.ptr.tolist() == [0, 1, 3, 6, 10, 15, 21]


def test_a_part_of_the_data_set_keeps_its_names(source, tmp_path):
    part = CrystalDataset(source, tmp_path)[[4, 1]]
    assert part.structure_ids == ["c4", "c1"]
    assert [float(data.y) for data in part] == [4.0, 1.0]


def test_the_second_time_everything_comes_from_the_cache(source, tmp_path):
    first = CrystalDataset(source, tmp_path, pre_transform=Shift(1.0))
    second = CrystalDataset(source, tmp_path, pre_transform=Shift(1.0))
    assert Shift.calls == 6
    for one, other in zip(first, second, strict=True):
        assert one.to_dict().keys() == other.to_dict().keys()
        assert all(torch.equal(one[key], other[key]) for key in ("z", "pos", "cell", "pbc", "y"))
    assert second.target_names == first.target_names


def test_a_changed_setting_that_the_repr_does_not_tell_never_reads_the_old_cache(source, tmp_path):
    assert repr(Shift(1.0)) == repr(Shift(2.0))
    one = CrystalDataset(source, tmp_path, pre_transform=Shift(1.0))
    two = CrystalDataset(source, tmp_path, pre_transform=Shift(2.0))
    assert Shift.calls == 12
    assert torch.allclose(two[0].pos - one[0].pos, torch.ones(1))


def test_each_thing_the_result_depends_on_makes_another_cache(source, crystals, tmp_path, monkeypatch):
    CrystalDataset(source, tmp_path)
    CrystalDataset(source, tmp_path, dtype=torch.float64)
    CrystalDataset(source, tmp_path, pre_filter=lambda data: data.num_nodes > 2)
    CrystalDataset(Listed(crystals, np.arange(6.0) + 1, source.structure_ids, "energy"), tmp_path)
    CrystalDataset(Listed(crystals, np.arange(6.0), source.structure_ids, "gap"), tmp_path)
    CrystalDataset(Listed(crystals[::-1], np.arange(6.0), source.structure_ids, "energy"), tmp_path)
    monkeypatch.setattr("torch_geometric_crystal.datasets.crystal_dataset.__version__", "99.0")
    CrystalDataset(source, tmp_path)
    assert len(list(tmp_path.glob("*.pt"))) == 7


def test_a_changed_file_is_read_anew(source, tmp_path):
    path = tmp_path / "set.npz"
    data = [entry.load() for entry in source]
    write_compact_store(path, data, "energy")
    assert CrystalDataset(path, tmp_path / "cache").y.sum() == 15
    write_compact_store(path, data[:3], "energy")
    assert CrystalDataset(path, tmp_path / "cache").y.sum() == 3


def test_a_transform_whose_state_cannot_be_seen_is_not_cached(source, tmp_path):
    class Slotted:
        __slots__ = ("amount",)

        def __call__(self, data):
            return data

    with pytest.warns(CacheWarning, match="not cached: pre_transform or pre_filter: Slotted"):
        CrystalDataset(source, tmp_path, pre_transform=Slotted())
    assert list(tmp_path.iterdir()) == []


def test_no_cache_is_written_or_read_if_not_wanted(source, tmp_path):
    for _ in range(2):
        CrystalDataset(source, tmp_path, pre_transform=Shift(1.0), cache=False)
    assert Shift.calls == 12
    assert list(tmp_path.iterdir()) == []


def test_force_reload_processes_again(source, tmp_path):
    for _ in range(2):
        CrystalDataset(source, tmp_path, pre_transform=Shift(1.0), force_reload=True)
    assert Shift.calls == 12


def test_a_damaged_cache_is_made_anew(source, tmp_path):
    CrystalDataset(source, tmp_path)
    (path,) = tmp_path.glob("*.pt")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.warns(CacheWarning, match="made anew"):
        assert len(CrystalDataset(source, tmp_path)) == 6
    assert len(CrystalDataset(source, tmp_path)) == 6


def test_a_bad_structure_raises_with_its_name(crystals, tmp_path):
    with pytest.raises(InvalidStructureError, match="structure '1': site 0 is disordered"):
        CrystalDataset([crystals[0], ALLOY], tmp_path)
    assert list(tmp_path.glob("*.pt")) == []


def test_bad_structures_are_skipped_and_listed_also_from_the_cache(crystals, tmp_path):
    mixed = [crystals[0], ALLOY, crystals[1], ALLOY]
    with pytest.warns(StructureWarning, match="2 structures skipped, listed in dataset.errors"):
        dataset = CrystalDataset(mixed, tmp_path, on_error="skip")
    assert dataset.structure_ids == ["0", "2"]
    again = CrystalDataset(mixed, tmp_path, on_error="skip")
    assert again.errors == dataset.errors
    assert [name for name, _ in again.errors] == ["1", "3"]
    assert "OrderDisordered" in again.errors[0][1]


def test_a_cache_made_by_skipping_does_not_hide_faults_from_who_wants_them_raised(crystals, tmp_path):
    with pytest.warns(StructureWarning):
        CrystalDataset([crystals[0], ALLOY], tmp_path, on_error="skip")
    with pytest.raises(InvalidStructureError, match="structure '1': site 0 is disordered"):
        CrystalDataset([crystals[0], ALLOY], tmp_path)


def test_a_repeated_id_is_refused_or_skipped(crystals, tmp_path):
    twice = Listed(crystals[:2], structure_ids=["a", "a"])
    with pytest.raises(InvalidStructureError, match="structure 'a': its id occurs 2 times"):
        CrystalDataset(twice, tmp_path)
    with pytest.warns(StructureWarning, match="1 structures skipped"):
        assert len(CrystalDataset(twice, tmp_path, on_error="skip")) == 1


def test_overlapping_atoms_are_reported_in_one_warning(tmp_path):
    close = Structure(Lattice.cubic(4), ["H", "H"], [[0, 0, 0], [0, 0, 0.001]])
    with pytest.warns(StructureWarning, match="structure '0': atoms .*; and 2 more such notes") as caught:
        CrystalDataset([close] * 5, tmp_path)
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("structures", "options", "message"),
    [
        ([], {}, "it is empty"),
        ([ALLOY], {"on_error": "skip"}, "none of 1 can be used; the first, '0': site 0 is disordered"),
        ([Structure(Lattice.cubic(3), ["H"], [[0] * 3])], {"pre_filter": bool}, "pre_filter left none of 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*structures skipped")
def test_a_data_set_with_nothing_in_it_is_refused(structures, options, message, tmp_path):
    if "pre_filter" in options:
        options = {"pre_filter": lambda data: False}
    with pytest.raises(ValueError, match=f"no structures in .*{message}"):
        CrystalDataset(structures, tmp_path, **options)


def test_one_structure_is_a_data_set(salt, tmp_path):
    for _ in range(2):
        dataset = CrystalDataset(Listed([salt], [2.0], ["salt"]), tmp_path)
        assert len(dataset) == 1
        assert dataset.structure_ids == ["salt"]
        assert dataset[0].y.tolist() == [[2.0]]
        assert next(iter(DataLoader(dataset))).structure_id == ["salt"]


def test_missing_targets_are_nan(crystals, tmp_path):
    dataset = CrystalDataset(Listed(crystals[:2], [[1.0, np.nan], [np.nan, 2.0]], target_names=["a", "b"]), tmp_path)
    assert dataset.y.isnan().tolist() == [[False, True], [True, False]]


def test_a_full_disk_leaves_the_old_cache_and_the_data_set_works(source, tmp_path, monkeypatch):
    CrystalDataset(source, tmp_path)
    (path,) = tmp_path.glob("*.pt")
    old = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.warns(CacheWarning, match="was not written .*No space left"):
            assert len(CrystalDataset(source, tmp_path, force_reload=True)) == 6
    assert path.read_bytes() == old
    assert sorted(p.suffix for p in tmp_path.iterdir()) in ([".pt"], [".lock", ".pt"])
    assert len(CrystalDataset(source, tmp_path)) == 6


def test_a_folder_that_cannot_be_written_does_not_stop_the_data_set(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(CacheWarning, match="was not written"):
        assert len(CrystalDataset(source, tmp_path / "file" / "cache")) == 6


def test_a_worker_that_imports_an_unguarded_script_is_told_so(source, tmp_path, monkeypatch):
    CrystalDataset(source, tmp_path / "made")
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    assert len(CrystalDataset(source, tmp_path / "made")) == 6
    with pytest.raises(RuntimeError, match="__name__ == '__main__'"):
        CrystalDataset(source, tmp_path / "absent")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"on_error": "ignore"}, "on_error: expected"), ({"num_workers": -1}, "num_workers: expected")],
)
def test_a_wrong_option_is_named(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        CrystalDataset([], tmp_path, **options)


def test_a_target_cannot_be_chosen_for_an_opened_source(source, tmp_path):
    with pytest.raises(ValueError, match="target: expected None"):
        CrystalDataset(source, tmp_path, target="energy")


def test_of_two_processes_one_makes_the_cache_and_a_kill_in_a_later_writing_leaves_it_whole(source, tmp_path):
    path = tmp_path / "set.npz"
    write_compact_store(path, [entry.load() for entry in source], "energy")
    command = [sys.executable, str(SCRIPT), str(path), str(tmp_path / "cache"), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr

    assert (tmp_path / "statuses").read_text() == "[0, 0]"
    answers = [(tmp_path / f"answer{number}").read_text() for number in range(3)]
    assert answers == ["6 15.0 []"] * 3
    # One of the first two processed all six crystals, the other none; the killed one six; the last one none.
    workers = (tmp_path / "log").read_text().split()
    assert [workers.count(worker) for worker in dict.fromkeys(workers)] == [6, 6]

    (before,) = (tmp_path / "before").glob("*.pt")
    (after,) = (tmp_path / "after").glob("*.pt")
    assert before.read_bytes() == after.read_bytes()
    assert len([p for p in (tmp_path / "after").iterdir() if p.suffix == ".tmp"]) == 1


def test_a_data_set_can_be_sent_to_loader_workers_without_its_source(tmp_path):
    dataset = Elastic2015(tmp_path)
    content = pickle.dumps(dataset)
    assert b"lattice" not in content
    assert len(pickle.loads(content)) == 1181
