"""What README.rst and docs/ tell a user to type does work."""

import csv
import re
import textwrap
from pathlib import Path

import pytest

from torch_geometric_crystal.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.rst", *(ROOT / "docs").glob("*.rst")])


def code_blocks(text: str, language: str) -> list[str]:
    """The bodies of the `language` blocks of a reStructuredText page."""
    pattern = rf"^\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)"
    return [textwrap.dedent(body) for body in re.findall(pattern, text + "\n", re.MULTILINE)]


PAGES_WITH_PYTHON = [page for page in PAGES if code_blocks(page.read_text(encoding="utf-8"), "python")]


@pytest.mark.parametrize("page", PAGES_WITH_PYTHON, ids=lambda page: page.name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, monkeypatch, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    for block in code_blocks(page.read_text(encoding="utf-8"), "python"):
        exec(compile(block, str(page), "exec"), namespace)


def test_readme_has_python_to_run():
    assert ROOT / "README.rst" in PAGES_WITH_PYTHON


def test_the_readme_quickstart_predicts_one_target():
    namespace: dict[str, object] = {}
    exec(code_blocks((ROOT / "README.rst").read_text(encoding="utf-8"), "python")[0], namespace)
    assert namespace["prediction"].shape == (1, 1)
    assert sum(p.numel() for p in namespace["model"].parameters()) == 853_505
    assert namespace["batch"].truncation_bound.item() <= 1e-3


@pytest.mark.slow
def test_the_command_line_of_the_readme_runs_as_it_is_written(monkeypatch, tmp_path, capsys):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    lines = [line[2:] for block in code_blocks(text, "console") for line in block.splitlines()]
    commands = [line.split() for line in lines if line.startswith("tgcrystal ") and "matbench" not in line]
    assert [command[1] for command in commands] == ["train", "evaluate", "predict"]
    for command in commands:
        app(command[1:], standalone_mode=False)
    assert "24 of 24 structures predicted" in capsys.readouterr().out
    assert (tmp_path / "runs/first/parity.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert all(float(row["prediction"]) < 1.0 for row in rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"`[^`<]+<([^`>]+)>`_", text)
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    named = re.findall(r"(?:``|^)((?:examples|benchmarks|docs|tests)/[\w/.-]+\.\w+)(?:``|\s)", text, re.MULTILINE)
    missing += [t for t in named if not (ROOT / t).exists()]
    assert missing == []


def test_readme_names_every_example():
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "examples").glob("*.py") if path.name not in text] == []


def test_code_blocks_are_found_with_their_indentation_removed():
    page = "Text\n\n.. code-block:: python\n\n   a = 1\n\n   def f():\n       return a\n\nMore\n"
    page += "\n.. code-block:: console\n\n   $ x\n"
    assert code_blocks(page, "python") == ["a = 1\n\ndef f():\n    return a\n\n"]
    assert code_blocks(page, "console") == ["$ x\n\n"]
