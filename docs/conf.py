"""How Sphinx builds these pages: ``make docs``. Nothing is fetched while building."""

import re
import sys
from pathlib import Path

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generate  # noqa: E402 (found by the line above)

from torch_geometric_crystal import __version__  # noqa: E402

project = "torch_geometric_crystal"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_parser",
]
exclude_patterns = ["_build"]
default_role = "literal"
smartquotes_action = "D"  # dashes alone
myst_heading_anchors = 3

mathjax4_config = {"output": {"displayOverflow": "linebreak"}}  # a formula wider than the page goes on in a new line

html_theme = "furo"
html_title = project
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["page.css"]
html_theme_options = {"navigation_with_keys": True}

add_module_names = False
maximum_signature_line_length = 90
python_use_unqualified_type_names = True
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "special-members": "__call__", "show-inheritance": True}
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = ["Shapes"]

nitpicky = True
nitpick_ignore_regex = [
    # Other libraries' names. To link them Sphinx would have to fetch their indices.
    (
        "py:.*",
        r"(abc|ase|collections|lightning|matbench|numpy|os|pathlib|pymatgen|sklearn|torch|torch_geometric|typing)\..*",
    ),
    ("py:class", "Atoms|IMolecule|IStructure|Molecule|SiteCollection|Structure"),
    # Words beside a type in "name (int, optional)".
    ("py:class", "optional|sequence"),
    # PyG's docstrings, whose form the layers follow, use this role for values.
    ("py:obj", ".*"),
]

NAMED_BY_MODULES = ("class", "data", "exception", "function")


def find_by_last_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: Element) -> Element | None:
    """Link a name of this library that is documented elsewhere than where the reference says.

    Packages export what their modules define, so a class has two full names, and one of them is on these pages.
    """
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or ("." in target and not target.startswith(f"{project}.")):
        return None
    domain = env.domains.python_domain
    last = target.rpartition(".")[2]
    found = [
        name
        for name, entry in domain.objects.items()
        if name.startswith(f"{project}.") and name.rpartition(".")[2] == last and entry.objtype in NAMED_BY_MODULES
    ]
    if len(found) != 1:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, contnode)


def tidy_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """Write what has no form that Sphinx can parse as Python, and NumPy's arrays as the code has them."""
    return tidy(signature), tidy(result)


def tidy(text: str | None) -> str | None:
    """A part of a signature: made defaults of data classes, classes as defaults, arrays."""
    if text is None:
        return None
    text = text.replace("<factory>", "...")
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    array = r"~?numpy\.ndarray\[tuple\[(?:~?typing\.)?Any, \.\.\.\], ~?numpy\.dtype\[([~\w.]+)\]\]"
    return re.sub(array, r"~numpy.typing.NDArray[\1]", text)


def skip_fields_of_tuples(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out "Alias for field number 0": the class's docstring describes the fields."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def split_fields(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Write ``a, b: text`` under Attributes as two fields, as Napoleon does under Args."""
    if "Attributes:" not in lines:
        return
    for number in range(len(lines) - 1, lines.index("Attributes:"), -1):
        match = re.fullmatch(r"( +)(\w+(?:, \w+)+): (.+)", lines[number])
        if match:
            lines[number : number + 1] = [f"{match[1]}{field}: {match[3]}" for field in match[2].split(", ")]


def setup(app: Sphinx) -> None:
    """Write the pages that come from the code before Sphinx looks for pages."""
    app.connect("builder-inited", lambda app: generate.write_pages(Path(app.srcdir)))
    app.connect("autodoc-process-signature", tidy_signature)
    app.connect("autodoc-process-docstring", split_fields, priority=400)  # before Napoleon
    app.connect("autodoc-skip-member", skip_fields_of_tuples)
    app.connect("missing-reference", find_by_last_name)
