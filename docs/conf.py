"""Settings of the documentation site (`make docs`)."""

import contextlib
import io
import os
from pathlib import Path
from typing import Any

from sb3_distill import cli
from sb3_distill.version import __version__
from sb3_distill.visualize.cli import make_parser

project = "sb3-distill"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_show_copyright = False
# Pages of `sb3-distill export --format web`, for the start page
html_extra_path = ["live"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"sb3-distill {release}"
# The address of the repository is known where the published site is built.
HOME = os.environ.get("READTHEDOCS_GIT_CLONE_URL", "").removesuffix(".git")
REF = os.environ.get("READTHEDOCS_GIT_IDENTIFIER", "main")
html_theme_options = {"source_repository": HOME, "source_branch": REF, "source_directory": "docs/"} if HOME else {}
exclude_patterns = ["_build", "live"]
# Links to headings of other pages, as GitHub makes them
myst_heading_anchors = 4
# What commands print is no Python.
highlight_language = "text"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# The tables of studies, which stand in reports too, begin at their second level
suppress_warnings = ["myst.header"]

FIGURES = next(action.choices for action in make_parser()._actions if isinstance(action.choices, dict))
# The commands' own help: there is nothing else to keep up to date
COMMANDS = [
    *([verb] for verb in cli.VERBS),
    ["export", "bench"],
    *(["visualize", figure] for figure in FIGURES),
]


def help_of(command: list[str]) -> str:
    """What ``sb3-distill COMMAND --help`` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        cli.main([*command, "--help"])
    return printed.getvalue().rstrip()


def write_commands(app: Any) -> None:
    """Write the page of the commands."""
    os.environ["COLUMNS"] = "100"
    parts = [f"## {' '.join(command)}\n\n```text\n{help_of(command)}\n```\n" for command in sorted(COMMANDS)]
    page = Path(app.srcdir, "_generated", "commands.md")
    page.parent.mkdir(exist_ok=True)
    page.write_text("\n".join(["# Commands\n\nWhat `sb3-distill COMMAND --help` says.\n", *parts]))


def add_colab(app: Any, page: str, source: list[str]) -> None:
    """Put a link under the title of the tutorial that opens its notebook."""
    if page == "tutorial" and HOME.startswith("https://github.com/"):
        title, _, text = source[0].partition("\n")
        path = f"{HOME.removeprefix('https://github.com/')}/blob/{REF}/docs/tutorial.ipynb"
        source[0] = f"{title}\n\n[Open in Colab](https://colab.research.google.com/github/{path})\n{text}"


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_commands)
    app.connect("source-read", add_colab)
