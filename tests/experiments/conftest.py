"""Experiments run as from the command line, and their modules imported by their bare names."""

import json
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "experiments"
PNG = b"\x89PNG"


@pytest.fixture(scope="package", autouse=True)
def _experiment_modules():
    before, folders = set(sys.modules), [str(FOLDER), str(FOLDER.parent)]
    sys.path[:0] = folders
    yield
    for folder in folders:
        sys.path.remove(folder)
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(FOLDER.parent)):
            del sys.modules[name]


@pytest.fixture
def run_quickly(monkeypatch, tmp_path, capsys):
    """Run the quick form of an experiment; returns what it wrote."""

    def run(name: str, *arguments: str) -> dict:
        output = tmp_path / f"{name}.json"
        settings = ["--quick", "--output", str(output), "--work", str(tmp_path / "work"), *arguments]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *settings])
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        assert output.with_suffix(".png").read_bytes().startswith(PNG)
        capsys.readouterr()
        figures = json.loads(output.read_text())
        assert figures["quick"] is True
        assert figures["provenance"]["command"].startswith(f"python benchmarks/experiments/{name}.py --quick")
        return figures

    return run
