"""The notebook of the tutorial is made from its page."""

import json
import runpy

from tests.docs.blocks import BLOCKS, blocks_of, listing
from tests.helpers import REPOSITORY

DOCS = REPOSITORY / "docs"
NOTEBOOK = runpy.run_path(str(DOCS / "notebook.py"))


def test_the_notebook_is_that_of_the_page():
    assert (DOCS / "tutorial.ipynb").read_text() == NOTEBOOK["as_text"](), "run `python docs/notebook.py`"


def test_every_block_is_a_cell():
    cells = json.loads((DOCS / "tutorial.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    blocks = [block for block in blocks_of(DOCS / "tutorial.md") if block.language in ("bash", "python")]
    assert len(code) == len(blocks) > 5
    for block, cell in zip(blocks, code, strict=True):
        magic = "%" if block.text.startswith("pip ") else "%%bash -e\n" if block.language == "bash" else ""
        assert cell == magic + block.text.strip("\n")
    prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    # A notebook lies alone: nothing beside it can be linked, and comments for our tests are left out.
    assert "](" not in prose.replace("](http", "") and "<!--" not in prose and "```c\n" in prose
    assert len({cell["id"] for cell in cells}) == len(cells)


def test_the_list_of_blocks_is_theirs():
    *lines, total = listing().splitlines()
    known = {str(block): block for block in BLOCKS}
    for line in lines:
        name, _, what = line.partition("  ")
        reason = known.pop(name).reason
        assert what == ("run" if reason is None else f"read only: {reason}")
    assert not {block.language for block in known.values()} & {"bash", "python"}
    n_run = sum(line.endswith("  run") for line in lines)
    assert total == f"{len(lines)} blocks, of which {n_run} are run by `make test-ci`" and n_run > 50
