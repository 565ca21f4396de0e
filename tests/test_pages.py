"""The pages of docs/ that tests/pages.py writes, and what it reads out of notebooks."""

import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pages
import pytest
from called import Calls
from nbformat import NotebookNode
from notebook_tools import notebooks, read_notebook
from test_notebooks import Chapter, _anchors

COMMAND = "run `python tests/pages.py`"
LINK = re.compile(r"\]\((?!https?:|#)([^)#]*)#?([^)]*)\)")


def notebook(*texts: str) -> NotebookNode:
    cells = [nbformat.v4.new_markdown_cell(text) for text in texts]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.fixture
def chapters(monkeypatch: pytest.MonkeyPatch) -> dict[Path, NotebookNode]:
    """Notebooks in place of those of the course; tests add what they need."""
    found: dict[Path, NotebookNode] = {}
    monkeypatch.setattr(pages, "notebooks", lambda: list(found))
    monkeypatch.setattr(pages, "read_notebook", found.__getitem__)
    return found


@pytest.mark.parametrize("name", pages.PAGES)
def test_pages_say_what_the_notebooks_say(name: str) -> None:
    text = (pages.DOCS / name).read_text(encoding="utf-8")
    assert text == pages.page(name), COMMAND


def test_links_lead_to_files_and_headings() -> None:
    anchors = {path: _anchors(Chapter(path, read_notebook(path), [])) for path in notebooks()}
    for name in pages.PAGES:
        links = LINK.findall((pages.DOCS / name).read_text(encoding="utf-8"))
        assert links
        for file, anchor in links:
            target = (pages.DOCS / file).resolve()
            assert target.exists(), file
            assert target.suffix != ".ipynb" or unquote(anchor) in anchors[target], (file, anchor)


def test_a_stale_page_is_noticed_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    monkeypatch.setattr(pages, "PAGES", {"a.md": ("A", "What it is.", lambda: "the body")})

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["pages.py", *arguments])
        return pages.main()

    assert run("--check") == 1
    assert not list(tmp_path.iterdir())
    assert run() == 0
    assert run("--check") == 0
    written = (tmp_path / "a.md").read_text()
    (tmp_path / "a.md").write_text(written.replace("body", "edit"))
    assert run("--check") == 1
    assert "edit" in (tmp_path / "a.md").read_text()
    assert run() == 0
    assert (tmp_path / "a.md").read_text() == written


# Terms

DEFINED = {
    "A **leaf** has no history.": ("leaf", "A **leaf** has no history."),
    "Look. **Warm-up** begins small. Then go on.": ("warm-up", "**Warm-up** begins small."),
    "Here it is `a. B`, a **view**: nothing is copied": ("view", None),
    "- an **epoch** is one pass;\n- another": ("epoch", "An **epoch** is one pass."),
    "(**Newton's step** is best.) And so on.": ("newton's step", "(**Newton's step** is best.)"),
    "The optimiser **Adam** scales.": ("Adam", "The optimiser **Adam** scales."),
    "A **head**, see [below](#Heads).": ("head", "A **head**, see [below](../notebooks/01_a.ipynb#Heads)."),
    "A **net**, see [there](02_b.ipynb#N).": ("net", "A **net**, see [there](../notebooks/02_b.ipynb#N)."),
}
NO_TERMS = [
    "**Predict** it, and **predict** again.",
    "| **leaf** | a table |",
    "# A **leaf**",
    "It is **far too long a phrase**, and **asked?** and **ends:** so, or **2 of them**.",
    "`a**b**c` and\n\n```python\n**kwargs**\n```",
    "<details><summary>Hint</summary>\n\nA **leaf**.\n\n</details>",
]


@pytest.mark.parametrize("text", DEFINED)
def test_a_term_comes_with_its_sentence(text: str) -> None:
    (term,) = pages.terms(Path("01_a.ipynb"), notebook("# A\n\n## Of `b`", text))
    name, sentence = DEFINED[text]
    assert term.name == name
    assert term.sentence == (sentence or f"{text}.")
    assert term.heading == "Of b"


@pytest.mark.parametrize("text", NO_TERMS)
def test_other_bold_text_is_no_term(text: str) -> None:
    assert not list(pages.terms(Path("01_a.ipynb"), notebook(text)))


def test_terms_are_sorted_and_defined_once(chapters: dict[Path, NotebookNode]) -> None:
    chapters[Path("01_a.ipynb")] = notebook("# A\n\nA **view** and a **Leaf**.")
    assert pages.glossary().index("| Leaf |") < pages.glossary().index("| view |")
    chapters[Path("02_b.ipynb")] = notebook("# B\n\nThe **leaf** again.")
    with pytest.raises(ValueError, match="'leaf' is bold in 01_a, 'A', and in 02_b, 'B'"):
        pages.glossary()


# Calls

TORCH = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
CALLED = {
    "torch.cat([])": ["torch.cat"],
    "F.relu(x)": ["torch.nn.functional.relu"],
    "from torch.utils.data import DataLoader as Loader\nLoader([])": ["torch.utils.data.DataLoader"],
    "x = torch.zeros(3)\n(x[0] + 1).sum()": ["torch.zeros", "torch.Tensor.sum"],
    "def f(x: torch.Tensor) -> torch.Tensor: ...\nf(x).sum()": ["torch.Tensor.sum"],
    "def f(x: torch.Tensor):\n    x.sum()": ["torch.Tensor.sum"],
    "x = torch.zeros(3)\ndef f(x):\n    x.sum()": ["torch.zeros"],
    "x = torch.zeros(3)\n[x.sum() for x in y]": ["torch.zeros"],
    "x = torch.zeros(3)\nlambda x: x.sum()": ["torch.zeros"],
    "x = torch.zeros(3)\nfor x in y:\n    x.sum()": ["torch.zeros"],
    "x: torch.Tensor = torch.zeros(3)\nx.sum()": ["torch.zeros", "torch.Tensor.sum"],
    "x: torch.Tensor\nx.sum()": ["torch.Tensor.sum"],
    "x: object = torch.zeros(3)\nx.sum()": ["torch.zeros", "torch.Tensor.sum"],
    "x = torch.zeros(3)\nx: list = []\nx.sum()": ["torch.zeros"],
    "x.sum()": [],
    "x.gather(1, y)": ["torch.Tensor.gather"],
    "x.flush()": [],
    "x.step()": [],
    "x.no_such_method()": [],
    "class A(nn.Module): ...\nA().train()": ["torch.nn.Module", "torch.nn.Module.train"],
    "@torch.no_grad()\ndef f(g=torch.Generator()): ...": ["torch.no_grad", "torch.Generator"],
    "torch.optim.SGD([]).step()": ["torch.optim.Optimizer.step", "torch.optim.SGD"],
    "torch = None\ntorch.cat([])": [],
    "from course_utils.datasets import load_digits\nx, y = load_digits()\ny.max()": [
        "course_utils.datasets.load_digits",
        "torch.Tensor.max",
    ],
}


@pytest.mark.parametrize("source", CALLED)
def test_calls_are_told_by_reading(source: str) -> None:
    assert [call.name for call in Calls().read(TORCH + source)] == CALLED[source]


def test_a_later_cell_knows_the_names_of_an_earlier_one() -> None:
    reader = Calls()
    reader.read(TORCH + "x = torch.zeros(3)")
    assert [call.name for call in reader.read("%magic\nx.sum()")] == ["torch.Tensor.sum"]


def test_a_call_is_listed_with_its_first_items(chapters: dict[Path, NotebookNode]) -> None:
    nb = notebook("# A")
    for number in (0, 2, 1, 2, 3, 4, 5):
        cell = nbformat.v4.new_code_cell(TORCH + "torch.cat([])\nprint()")
        cell.metadata["tags"] = [f"item:1.0{number}"] if number else ["setup"]
        nb.cells.append(cell)
    chapters[Path("01_a.ipynb")] = nb
    links = [f"[1.0{number}](../notebooks/01_a.ipynb#A)" for number in (2, 1, 3, 4)]
    first, *more = links
    assert pages.index_of_calls().endswith(f"| `torch.cat` | **{first}**, {', '.join(more)} |")
