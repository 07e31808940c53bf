import os
import shutil

import numpy as np
import pytest

from torch_geometric_crystal.benchmark.tasks import load_task, official_tasks
from torch_geometric_crystal.benchmark.tasks.matbench_package import official_folds
from torch_geometric_crystal.datasets.bundled import FILES


@pytest.fixture(scope="module")
def phonons():
    return load_task("matbench_phonons")


def test_there_are_nine_structure_tasks():
    short = "dielectric jdft2d log_gvrh log_kvrh mp_e_form mp_gap mp_is_metal perovskites phonons"
    assert official_tasks() == [f"matbench_{name}" for name in short.split()]


def test_bundled_task_is_the_official_one_with_the_official_folds(phonons):
    assert phonons.official
    assert len(phonons.ids) == len(set(phonons.ids)) == 1265
    assert [(len(split.train), len(split.test)) for split in phonons.splits] == [(1012, 253)] * 5
    for split, fold in zip(phonons.splits, official_folds("matbench_phonons"), strict=True):
        assert [phonons.ids[k] for k in split.test] == fold["test"]
        assert [phonons.ids[k] for k in split.train] == fold["train"]
    assert (phonons.target, phonons.unit, phonons.kind, phonons.metric) == (
        "last phdos peak",
        "1/cm",
        "regression",
        "mae",
    )


def test_the_same_values_as_matbench_loads(phonons, monkeypatch):
    from matbench.task import MatbenchTask

    monkeypatch.setenv("MATMINER_DATA", str(FILES))
    official = MatbenchTask("matbench_phonons", autoload=True)
    assert list(official.df.index) == list(phonons.ids)
    assert np.array_equal(official.df["last phdos peak"].to_numpy(), phonons.values)


def test_matminers_folder_is_read_where_it_has_the_file_and_the_package_where_not(monkeypatch, tmp_path):
    monkeypatch.setenv("MATMINER_DATA", str(tmp_path))
    assert load_task("matbench_phonons").source.path.parent == FILES
    shutil.copy(FILES / "matbench_phonons.json.gz", tmp_path)
    assert load_task("matbench_phonons").source.path.parent == tmp_path
    assert os.environ["MATMINER_DATA"] == str(tmp_path)


def test_altered_file_is_refused(tmp_path):
    path = tmp_path / "matbench_phonons.json.gz"
    shutil.copy(FILES / path.name, path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="is not the official file of matbench_phonons"):
        load_task("matbench_phonons", tmp_path)


def test_absent_file_is_not_downloaded_but_named_with_its_address(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"matbench_jdft2d.json.gz is not there: get it from https://.*--data-dir"
    ):
        load_task("matbench_jdft2d", tmp_path)


def test_download_is_left_to_matminer(tmp_path, monkeypatch):
    from matminer.datasets import dataset_retrieval

    def fetch(name, data_home):
        shutil.copy(FILES / f"{name}.json.gz", data_home)

    monkeypatch.setattr(dataset_retrieval, "load_dataset", fetch)
    assert len(load_task("matbench_phonons", tmp_path / "new", download=True).ids) == 1265


@pytest.mark.parametrize("name", ["matbench_photons", "matbench_steels"])
def test_unknown_task_and_one_without_structures_are_named(name):
    with pytest.raises(ValueError, match=r"task: expected one of .*matbench_phonons"):
        load_task(name)


def test_a_compact_store_does_not_get_the_name_of_an_official_task(tmp_path):
    (tmp_path / "matbench_mp_gap.npz").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"matbench_mp_gap.json.gz is not there"):
        load_task("matbench_mp_gap", tmp_path)
