"""The pages that are made from the code when the documentation is built: the gallery and the command line.

They go to ``docs/generated``, which git ignores. Sphinx is not needed here, so that the tests can call it.
"""

import ast
import html
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
PICTURES = ROOT / "docs" / "pictures"


def write_pages(docs: Path) -> None:
    """Write all generated pages below `docs`."""
    folder = docs / "generated"
    pages = {f"gallery/{path.stem}.rst": gallery_page(path) for path in sorted(EXAMPLES.glob("*.py"))}
    pages["command_line.md"] = command_line_page()
    for name, text in pages.items():
        write_if_changed(folder / name, text)
    for path in [*folder.rglob("*.rst"), *folder.rglob("*.md")]:
        if path.relative_to(folder).as_posix() not in pages:
            path.unlink()


def write_if_changed(path: Path, text: str) -> None:
    """Leave a page of the same text alone, so that Sphinx need not read it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def gallery_page(path: Path) -> str:
    """An example as a page: the docstring's first line is the heading, its indented lines the commands."""
    source = path.read_text(encoding="utf-8")
    module = ast.parse(source)
    title, _, body = (ast.get_docstring(module) or "").partition("\n")
    title = title.rstrip(".")
    body = re.sub(r"\n\n(?=    )", "\n\n.. code-block:: console\n\n", body).strip()
    picture = PICTURES / f"{path.stem}.png"
    parts = [f"{title}\n{'=' * len(title)}", body]
    if picture.is_file():
        parts.append(f".. image:: /pictures/{picture.name}\n   :width: 600\n   :alt: {title}")
        parts.append("The picture that the command above makes, without ``--quick``.")
    first_line = module.body[0].end_lineno + 2  # of the code, after the docstring
    parts.append(
        f".. literalinclude:: /../examples/{path.name}\n   :caption: examples/{path.name}\n   :lines: {first_line}-\n"
    )
    return "\n\n".join(parts)


def command_line_page() -> str:
    """``tgcrystal --help`` and that of each command, by Typer's own generator of documentation."""
    command = [sys.executable, "-m", "typer", "torch_geometric_crystal.cli.app", "utils", "docs", "--name", "tgcrystal"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True)
    return tidy_command_line(done.stdout)


def tidy_command_line(markdown: str) -> str:
    """Make code of flags and example commands, which Typer leaves as text, and drop the markup meant for a terminal."""
    markdown = re.sub(r"^# .*", "# Command line", markdown, count=1)
    markdown = re.sub(r"</?span[^>]*>", "", markdown)
    markdown = re.sub(r"\[/?bold\]", "`", markdown)
    markdown = link_commands(markdown)
    lines = []
    for line in markdown.splitlines():
        if re.match(r" +tgcrystal ", line):
            lines.append("    " + html.unescape(line.strip()))
        else:
            parts = line.split("`")
            parts[::2] = [re.sub(r"(?<![\w-])--[a-z][a-z-]*", r"`\g<0>`", part) for part in parts[::2]]
            lines.append("`".join(parts))
    return "\n".join(lines) + "\n"


def link_commands(markdown: str) -> str:
    """Link each command in a list of commands to its section, with the section's first sentences, which Typer cuts."""
    for section, first in re.findall(r"^##+ `tgcrystal (.+)`\n\n(.+)$", markdown, re.MULTILINE):
        name, anchor = section.split()[-1], f"tgcrystal-{section.replace(' ', '-')}"
        markdown = re.sub(
            rf"^\* `{re.escape(name)}`: .*$",
            lambda _, n=name, a=anchor, f=first: f"* [`{n}`](#{a}): {f}",
            markdown,
            flags=re.M,
        )
    return markdown
