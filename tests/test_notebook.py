"""docs/quickstart.ipynb: its cells run in a kernel, and show what the stored outputs show."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.documents.reading import LINK, ROOT

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
SMALL = {
    r"max_train_steps=\d+": "max_train_steps=1",
    r"num_inference_steps=\d+": "num_inference_steps=1",
    r"(max_train_samples|max_source_samples)=\d+": r"\1=4",
}


@pytest.fixture(scope="module")
def stored() -> NotebookNode:
    """The notebook as it lies in docs/."""
    return nbformat.read(NOTEBOOK, as_version=4)


def shown(notebook: NotebookNode) -> list[list[str]]:
    """The kinds of output of each cell with code, without printed progress."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kinds = {"image/png", "text/plain"}
    return [
        sorted(kinds & {*out.data}) if out.output_type != "error" else ["error"]
        for cell in cells
        for out in cell.outputs
        if out.output_type != "stream"
    ]


def test_the_stored_notebook_was_run_in_order(stored: NotebookNode) -> None:
    nbformat.validate(stored)
    counts = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert sum("image/png" in kinds for kinds in shown(stored)) == 4
    assert NOTEBOOK.stat().st_size < 400_000


def test_the_notebook_runs(stored: NotebookNode, tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        for pattern, size in SMALL.items():
            cell.source = re.sub(pattern, size, cell.source)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=280, resources=resources).execute()
    assert shown(notebook) == shown(stored)
    assert (tmp_path / "runs/self-improve/pipeline/README.md").is_file()


def test_links_of_the_notebook_lead_somewhere(stored: NotebookNode) -> None:
    words = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    links = LINK.findall(words)
    assert len(links) > 4 and all((NOTEBOOK.parent / link).is_file() for link in links)
