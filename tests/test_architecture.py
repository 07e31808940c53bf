"""The shape of the repository: what may import what, who may print, how long a file may be."""

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "torch_geometric_crystal"
SOURCES = sorted((ROOT / PACKAGE).rglob("*.py"))
MAX_LINES = 500

# From top to bottom: an area may import those after it, never one before it.
LAYERS = ("cli", "ase", "estimators", "explain", "benchmark", "nn", "datasets", "transforms", "data", "ops", "checks")
ALLOWED = {area: set(LAYERS[position + 1 :]) for position, area in enumerate(LAYERS)}
ALLOWED["testing"] = {"data", "transforms", "ops", "checks"}
ALLOWED["__init__"] = set()

# Areas whose classes derive from another package's: their modules may load it when they are imported. Their __init__
# does so when a name is first used, and says what to install.
INTEGRATIONS = {"ase": "ase", "estimators": "sklearn"}

# What `ops` and `nn` may load when they are imported, beside the standard library and the package itself.
CORE = {"torch", "numpy", "torch_geometric", PACKAGE} | set(sys.stdlib_module_names)
# What they may not even load inside a function: structures are read in `data`, training lives in `benchmark`.
FOREIGN = {"pymatgen", "ase", "lightning", "pytorch_lightning", "matminer", "matbench", "matplotlib", "pandas"}


def imported_modules(source: str, module: str, is_package: bool = False) -> Iterator[tuple[str, bool]]:
    """Each module that `source` imports, by its absolute name, and whether that happens on import of the file."""
    tree = ast.parse(source)
    deferred = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_for_type_checking(block)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        on_import = id(node) not in deferred
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, on_import
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package)
            for alias in node.names:
                yield f"{base}.{alias.name}", on_import
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            yield from ((str(name.value), on_import) for name in node.args[:1] if isinstance(name, ast.Constant))


def _is_for_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if node.level == 0:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + is_package]
    return ".".join(parts + ([node.module] if node.module else []))


def area_of(module: str) -> str | None:
    """`ops` for torch_geometric_crystal.ops.lattice, None for a module of another package."""
    parts = module.split(".")
    if parts[0] != PACKAGE:
        return None
    return parts[1] if len(parts) > 1 else "__init__"


def upward_imports(source: str, module: str, is_package: bool = False) -> list[str]:
    """The imports of `source` that point up or sideways."""
    area = area_of(module)
    wrong = []
    for name, _ in imported_modules(source, module, is_package):
        target = area_of(name)
        known = target in ALLOWED and target != "__init__"
        if known and target != area and target not in ALLOWED[area]:
            wrong.append(name)
    return wrong


def print_calls(source: str) -> list[int]:
    """The lines on which `source` calls print."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def module_name(path: Path) -> tuple[str, bool]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    return ".".join(parts[:-1] if is_package else parts), is_package


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_point_down(path):
    module, is_package = module_name(path)
    assert area_of(module) in ALLOWED, f"{module} is in no known area: add it to LAYERS"
    assert upward_imports(path.read_text(encoding="utf-8"), module, is_package) == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_integrations_are_imported_only_where_they_are_used(path):
    module, is_package = module_name(path)
    for name, on_import in imported_modules(path.read_text(encoding="utf-8"), module, is_package):
        inside = area_of(module) == area_of(name) and not is_package
        assert not (on_import and area_of(name) in INTEGRATIONS and not inside), f"{relative(path)} imports {name}"


CORE_SOURCES = [path for path in SOURCES if area_of(module_name(path)[0]) in ("ops", "nn", "checks", "__init__")]


def is_triton_module(name: str) -> bool:
    """Whether a module holds Triton kernels, which need Triton to be defined: chosen backends alone may import it."""
    return any(part.startswith("triton_") for part in name.split("."))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_kernels_of_triton_are_imported_only_where_they_are_used(path):
    module, is_package = module_name(path)
    if not is_triton_module(module):
        for name, on_import in imported_modules(path.read_text(encoding="utf-8"), module, is_package):
            assert not (on_import and is_triton_module(name)), f"{relative(path)} imports {name} on import"


@pytest.mark.parametrize("path", CORE_SOURCES, ids=relative)
def test_ops_and_nn_load_torch_numpy_and_torch_geometric_alone(path):
    module, is_package = module_name(path)
    for name, on_import in imported_modules(path.read_text(encoding="utf-8"), module, is_package):
        package = name.split(".")[0]
        on_import = on_import and not (package == "triton" and is_triton_module(module))
        assert package not in FOREIGN, f"{relative(path)} imports {name}"
        assert not on_import or package in CORE, f"{relative(path)} imports {name} on import, not where it is used"


IMPORT_NAMES = {"pyyaml": "yaml", "scikit-learn": "sklearn"}


def declared_packages() -> tuple[set[str], set[str]]:
    """The import names of what setup.py requires, and of that together with its extras."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    lists = {
        target.id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in ("INSTALL_REQUIRES", "EXTRAS")
    }
    required = {import_name(requirement) for requirement in lists["INSTALL_REQUIRES"]}
    return required, required | {import_name(r) for extra in lists["EXTRAS"].values() for r in extra}


def import_name(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9_.-]+", requirement).group()
    return IMPORT_NAMES.get(name, name)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_package_that_is_imported_is_declared_in_setup(path):
    required, optional = declared_packages()
    # matbench comes with the extra of its name, by a command of its own (README.rst); it pins what cannot be installed.
    optional |= {"matbench"}
    module, is_package = module_name(path)
    for name, on_import in imported_modules(path.read_text(encoding="utf-8"), module, is_package):
        package = name.split(".")[0]
        on_import = on_import and not (package == "triton" and is_triton_module(module))
        on_import = on_import and not (package == INTEGRATIONS.get(area_of(module)) and not is_package)
        if package not in sys.stdlib_module_names and package != PACKAGE:
            assert package in (required if on_import else optional), f"{relative(path)} imports {name}"


BLOCKED = sorted(FOREIGN - {"pandas"} | {"rich", "typer", "safetensors", "torchmetrics"})

IMPORT_WITHOUT = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
import torch_geometric_crystal
count = 0
for area in ("checks", "ops", "nn"):
    module = importlib.import_module("torch_geometric_crystal." + area)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), module.__name__ + "."):
        importlib.import_module(found.name)
        count += 1
print(count)
"""


def test_ops_and_nn_import_where_pymatgen_is_not_installed():
    script = textwrap.dedent(IMPORT_WITHOUT).replace("{blocked}", repr(BLOCKED))
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10


@pytest.mark.parametrize("path", [path for path in SOURCES if area_of(module_name(path)[0]) != "cli"], ids=relative)
def test_the_library_does_not_print(path):
    assert print_calls(path.read_text(encoding="utf-8")) == []


def test_no_file_is_longer_than_500_lines():
    folders = (PACKAGE, "tests", "examples", "benchmarks")
    lengths = {
        relative(path): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


# The readers above must see what they are there to refuse.


@pytest.mark.parametrize(
    "source",
    [
        "from torch_geometric_crystal.nn import Crystalformer",
        "import torch_geometric_crystal.nn.models",
        "from torch_geometric_crystal import nn",
        "from .. import nn",
        "from ..nn.models import cgcnn",
        "def function():\n    from torch_geometric_crystal import nn",
        "import importlib\nimportlib.import_module('torch_geometric_crystal.nn')",
        "if TYPE_CHECKING:\n    from ..nn import Crystalformer",
    ],
)
def test_an_upward_import_is_seen(source):
    assert len(upward_imports(source, f"{PACKAGE}.data.neighbors")) == 1


@pytest.mark.parametrize(
    ("source", "module", "is_package"),
    [
        ("from ..ops import lattice", f"{PACKAGE}.data.neighbors", False),
        ("from ..ops import lattice", f"{PACKAGE}.data", True),
        ("from .neighbors import neighbor_list", f"{PACKAGE}.data", True),
        ("from torch_geometric_crystal import __version__", f"{PACKAGE}.cli", False),
        ("import torch", f"{PACKAGE}.ops.lattice", False),
    ],
)
def test_a_downward_import_is_let_through(source, module, is_package):
    assert upward_imports(source, module, is_package) == []


def test_a_relative_import_in_a_package_is_read_from_that_package():
    assert list(imported_modules("from .neighbors import neighbor_list", f"{PACKAGE}.data", is_package=True)) == [
        (f"{PACKAGE}.data.neighbors.neighbor_list", True)
    ]


@pytest.mark.parametrize("block", ["def function():", "if TYPE_CHECKING:"])
def test_an_import_that_waits_is_told_from_one_on_import(block):
    source = f"import numpy\n{block}\n    import pymatgen.core"
    assert list(imported_modules(source, f"{PACKAGE}.ops.lattice")) == [("numpy", True), ("pymatgen.core", False)]


def test_a_print_is_seen():
    assert print_calls("def function():\n    print('hello')\n    rich.print('no')") == [2]
