"""Damaged CIF files through prediction: benchmarks/mutated_cifs.py in small, and all 2,000 of it as a slow test."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def mutated_cifs():
    """The script as a module."""
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("mutated_cifs", FOLDER / "mutated_cifs.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("provenance", None)


def assert_all_accounted_for(damages, rows):
    assert [row.structure_id for row in rows] == list(damages)
    for row in rows:
        assert bool(row.values) != bool(row.error), row
        if damages[row.structure_id] == "nothing":
            assert row.values, row.error


def test_of_200_damaged_files_each_is_predicted_or_has_a_reason_in_order(mutated_cifs, monkeypatch):
    monkeypatch.setattr(mutated_cifs, "LARGEST", 40)
    damages, rows = mutated_cifs.predict_damaged("cgcnn", 204, seed=7)
    assert len(rows) == 204
    assert_all_accounted_for(damages, rows)
    failed = {damages[row.structure_id] for row in rows if row.error}
    assert {"truncated", "tiny_cell", "odd_angles", "disorder", "garbage"} <= failed


@pytest.mark.slow
@pytest.mark.parametrize("model", ["crystalformer", "cgcnn", "alignn"])
def test_of_2000_damaged_files_each_is_predicted_or_has_a_reason_in_order(mutated_cifs, model, request):
    if not request.config.option.markexpr:
        pytest.skip("takes minutes: pytest -m slow")
    assert_all_accounted_for(*mutated_cifs.predict_damaged(model, 2000, seed=0))


def test_the_same_seed_gives_the_same_files(mutated_cifs, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        mutated_cifs.write_damaged(tmp_path / name, 34, seed=3)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
