"""The documentation cannot lag behind the code: every name, example and command is on a page, and no link is broken.

None of this needs Sphinx; ``make docs`` builds the pages and treats its warnings as errors.
"""

import html
import importlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from torch_geometric_crystal.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGE = "torch_geometric_crystal"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
WRITTEN = sorted(
    path
    for path in [*DOCS.rglob("*.rst"), *DOCS.rglob("*.md")]
    if path.relative_to(DOCS).parts[0] not in ("_build", "generated")
)
API_PAGES = sorted(path for path in (DOCS / "api").glob("*.rst") if path.stem != "index")
# The command line has a page made from its help.
PACKAGES = sorted(p.parent.name for p in (ROOT / PACKAGE).glob("*/__init__.py") if p.parent.name != "cli")


def load_generator():
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load_generator()


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> dict[str, str]:
    """The pages made from the code, by their name without ending."""
    folder = tmp_path_factory.mktemp("docs")
    generate.write_pages(folder)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).with_suffix("").as_posix(): path.read_text(encoding="utf-8") for path in paths}


def documented(text: str) -> Iterator[tuple[str, str]]:
    """Module and name of each object that a page of the reference documents."""
    module = ""
    for directive, argument in re.findall(r"^\.\. (\w+|py:data):: ([\w.]+)$", text, re.MULTILINE):
        if directive == "currentmodule":
            module = argument
        elif directive in ("autoclass", "autofunction", "autodata", "autoexception", "py:data"):
            path, _, name = argument.rpartition(".")
            yield path or module, name


def toctree_entries(text: str) -> list[str]:
    """What the toctrees of a page list."""
    entries = []
    for block in re.findall(r"^\.\. toctree::\n((?:   .*\n|\n)*)", text + "\n", re.MULTILINE):
        lines = [line.strip() for line in block.splitlines()]
        entries += [line for line in lines if line and not line.startswith(":")]
    return entries


def links(text: str) -> Iterator[tuple[str, str]]:
    """Kind and target of what a page links to or includes within the repository."""
    for target in re.findall(r":doc:`(?:[^`<]*<)?([^`>]+)>?`", text):
        yield "doc", target
    for target in re.findall(r"^\.\. (?:image|figure|include|literalinclude):: (\S+)$", text, re.MULTILINE):
        yield "file", target
    for target in re.findall(r"^```\{(?:include|literalinclude|image)\} (\S+)$", text, re.MULTILINE):
        yield "file", target
    for target in re.findall(r"`[^`<]+<([^`>]+)>`_", text) + re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target and not target.startswith("#"):
            yield "file", target


def resolve(page: str, target: str) -> str:
    """The page or file, relative to docs/, that a link on `page` means."""
    base = DOCS if target.startswith("/") else (DOCS / page).parent
    return Path(os.path.relpath(base / target.lstrip("/").partition("#")[0], DOCS)).as_posix()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_api_reference(package):
    names = set(importlib.import_module(f"{PACKAGE}.{package}").__all__)
    text = (DOCS / "api" / f"{package}.rst").read_text(encoding="utf-8")
    assert names - {name for _, name in documented(text)} == set()


@pytest.mark.parametrize("page", API_PAGES, ids=lambda page: page.stem)
def test_every_name_of_the_api_reference_exists(page):
    found = list(documented(page.read_text(encoding="utf-8")))
    assert [f"{module}.{name}" for module, name in found if not hasattr(importlib.import_module(module), name)] == []
    assert len(found) == len(set(found))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_in_the_gallery_with_its_docstring_and_its_code(generated, path):
    page = generated[f"generated/gallery/{path.stem}"]
    source = path.read_text(encoding="utf-8")
    title, underline = page.splitlines()[:2]
    assert source.startswith(f'"""{title}.\n')
    assert underline == "=" * len(title)
    (commands,) = re.findall(r"^\.\. code-block:: console\n\n((?:    .*\n)+)", page, re.MULTILINE)
    assert commands.startswith(f"    python examples/{path.name}")
    (first,) = re.findall(r":lines: (\d+)-", page)
    assert "literalinclude:: /../examples/" + path.name in page
    assert source.splitlines()[int(first) - 1].startswith(("import ", "from "))
    assert source.splitlines()[int(first) - 3].endswith('"""')


def test_every_picture_is_of_an_example_and_shown_with_it(generated):
    for picture in (DOCS / "pictures").iterdir():
        assert f".. image:: /pictures/{picture.name}\n" in generated[f"generated/gallery/{picture.stem}"]


def test_every_command_is_in_the_reference_with_its_options(generated):
    text = html.unescape(generated["generated/command_line"])
    command = typer.main.get_command(app)
    benchmarks = command.commands["benchmark"].commands
    assert set(command.commands) >= {"train", "predict", "benchmark"}
    for name in [*command.commands, *(f"benchmark {name}" for name in benchmarks)]:
        assert f"`tgcrystal {name}`\n" in text
    for option in command.commands["train"].params:
        assert f"* `{', '.join(sorted(option.opts, key=len))}" in text


def test_flags_and_example_commands_become_code_and_markup_of_the_terminal_goes():
    typed = "# `tgcrystal`\n\n[bold]tgcrystal demo[/bold]\n\n  tgcrystal x --y &lt;z&gt;   <span style='a'>(z)</span>\n"
    assert generate.tidy_command_line(typed + "\n* `--a-b`: Unlike --c-d.\n") == (
        "# Command line\n\n`tgcrystal demo`\n\n    tgcrystal x --y <z>   (z)\n\n* `--a-b`: Unlike `--c-d`.\n"
    )


def test_a_command_in_a_list_is_linked_to_its_section_with_its_whole_sentence():
    typed = (
        "* `x`: Does...\n\n## `tgcrystal x`\n\nDoes a thing.\n\n* `y`: Does...\n\n### `tgcrystal x y`\n\nDoes more.\n"
    )
    linked = generate.tidy_command_line("# `tgcrystal`\n\n" + typed)
    assert "* [`x`](#tgcrystal-x): Does a thing.\n" in linked
    assert "* [`y`](#tgcrystal-x-y): Does more.\n" in linked


def test_a_page_whose_example_has_gone_is_removed_and_others_are_not_written_again(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "command_line_page", lambda: "text")
    generate.write_pages(tmp_path)
    kept, stale = tmp_path / "generated/gallery/train_bundled.rst", tmp_path / "generated/gallery/gone.rst"
    stale.write_text("text")
    before = kept.stat().st_mtime_ns
    generate.write_pages(tmp_path)
    assert not stale.exists()
    assert kept.stat().st_mtime_ns == before


def test_every_page_is_reached_from_the_front_page(generated):
    texts = {p.relative_to(DOCS).with_suffix("").as_posix(): p.read_text(encoding="utf-8") for p in WRITTEN} | generated
    reached, waiting = set(), ["index"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for entry in toctree_entries(texts[page]):
            target = resolve(page, entry)
            children = [
                name for name in texts if name == target or (target.endswith("/*") and name.startswith(target[:-1]))
            ]
            assert children, f"{page}: the toctree lists {entry}, which is no page"
            waiting += [child for child in children if child not in reached]
    assert set(texts) - reached == set()


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_no_link_and_no_include_of_a_page_is_broken(generated, page):
    name = page.relative_to(DOCS).as_posix()
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in WRITTEN} | set(generated)
    for kind, target in links(page.read_text(encoding="utf-8")):
        found = resolve(name, target)
        assert found in pages if kind == "doc" else (DOCS / found).exists(), f"{name} names {target}"


def test_what_generated_pages_include_exists(generated):
    included = [
        target for name, text in generated.items() for kind, target in links(text) if name != "generated/command_line"
    ]
    assert len(included) >= len(EXAMPLES)
    assert [target for target in included if not (DOCS / target.lstrip("/")).exists()] == []


@pytest.mark.parametrize("page", ["README.rst", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"])
def test_no_link_and_no_picture_beside_the_documentation_is_broken(page):
    found = list(links((ROOT / page).read_text(encoding="utf-8")))
    assert [target for _, target in found if not ((ROOT / page).parent / target).exists()] == []


def test_the_readme_shows_a_result_and_the_two_commands():
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    assert re.search(r"^\.\. image:: benchmarks/results/[\w/]+\.png$", text, re.MULTILINE)
    assert re.search(r"^   \$ make demo\b.*\n   \$ make test\b", text, re.MULTILINE)
    assert len(text.splitlines()) <= 130


# The readers above must see what they are there to refuse.


def test_documented_names_are_found_with_their_modules():
    page = ".. currentmodule:: a.b\n\n.. autoclass:: C\n   :members:\n\n.. autofunction:: a.d.e\n\nautoclass:: F\n"
    assert list(documented(page)) == [("a.b", "C"), ("a.d", "e")]


def test_entries_of_toctrees_are_found():
    page = (
        "Text\n\n.. toctree::\n   :glob:\n   :caption: Guide\n\n   one\n   more/*\n\nText\n\n.. toctree::\n\n   two\n"
    )
    assert toctree_entries(page) == ["one", "more/*", "two"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (":doc:`data`", ("doc", "data")),
        (":doc:`the data </data>`", ("doc", "/data")),
        (".. image:: a/b.png\n", ("file", "a/b.png")),
        ("```{include} ../README.md\n", ("file", "../README.md")),
        ("`text <../LICENSE>`_", ("file", "../LICENSE")),
        ("![text](results/a.png)", ("file", "results/a.png")),
    ],
)
def test_a_link_is_seen(text, found):
    assert list(links(text)) == [found]


def test_addresses_are_no_files():
    assert list(links("`text <https://a.org>`_ [text](https://a.org) [text](#part)")) == []
