"""
Makes tutorial.ipynb from tutorial.md: `python docs/notebook.py`. Blocks of the shell and of Python become its cells.
"""

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE, NOTEBOOK = HERE / "tutorial.md", HERE / "tutorial.ipynb"
_BLOCK = re.compile(r"(?:^<!-- run: .+? -->\n)?^```(bash|python)\n(.*?)^```$\n?", re.DOTALL | re.MULTILINE)
# Pages lie beside the page, not beside a notebook that was downloaded.
_LOCAL_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]+\)")


def notebook_of(page: str) -> dict[str, Any]:
    """
    :param page: a page in Markdown
    :return: a notebook in Jupyter's format
    """
    cells = []
    # What stands between two blocks, then the language of the next one, then its lines
    texts, languages, blocks = (_BLOCK.split(page)[first::3] for first in range(3))
    for text, language, block in zip(texts, [*languages, ""], [*blocks, ""], strict=True):
        cells.append(_cell("markdown", _LOCAL_LINK.sub(r"\1", text)))
        if language == "bash":
            installs = block.startswith("pip ")
            cells.append(_cell("code", f"%{block}" if installs else f"%%bash -e\n{block}"))
        elif language:
            cells.append(_cell("code", block))
    cells = [{"id": f"cell-{index}", **cell} for index, cell in enumerate(cell for cell in cells if cell["source"])]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}


def _cell(kind: str, text: str) -> dict[str, Any]:
    results: dict[str, Any] = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {}, "source": text.strip("\n").splitlines(keepends=True), **results}


def as_text() -> str:
    """
    :return: the notebook of the tutorial, as its file has it
    """
    return json.dumps(notebook_of(PAGE.read_text()), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(as_text())
