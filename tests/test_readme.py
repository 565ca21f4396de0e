"""README.md, CONTRIBUTING.md and the forms for issues, against what the repository holds."""

import importlib.util
import re
from pathlib import Path

import pytest
from notebook_tools import ROOT, exercises, notebooks, read_notebook, syllabus

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"^<!-- command: (\w+) -->\n```bash\n(.*?)^```$", re.S | re.M)
CHAPTER = re.compile(r"^\| (\d\d) \| (?:\[([^]]+)\]\((\S+)\)|([^|]+)) \| ([^|]+) \| (\w+) \|$", re.M)
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "data/README.md"])
def test_relative_links_resolve(document):
    path = ROOT / document
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_what_the_commands_run_is_there(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    scripts = re.findall(r"\bpython ([\w/]+\.py)([^`\n]*)", text)
    assert scripts
    for script, arguments in scripts:
        source = (ROOT / script).read_text(encoding="utf-8")
        for option in re.findall(r"--[\w-]+", arguments):
            assert f'"{option}"' in source, f"{script} {option}"
    for module in re.findall(r"\bpython -m (course_utils[\w.]*)", text):
        assert importlib.util.find_spec(module), module
    for path in re.findall(r"(?<=[ `])(?:tests|notebooks|course_utils)/[\w/]+\.\w+", text):
        assert (ROOT / path).exists(), path
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, name


@pytest.mark.slow  # PyYAML is there with the tools of the wide checks
@pytest.mark.parametrize("name", ["output.yml", "text.yml"])
def test_forms_for_issues_are_valid(name):
    form = pytest.importorskip("yaml").safe_load((ROOT / ".github/ISSUE_TEMPLATE" / name).read_text("utf-8"))
    assert set(form) == {"name", "description", "labels", "body"}
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"input", "textarea", "dropdown"}
    assert all(field["attributes"]["label"].strip() for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)
    for field in fields:
        if field["id"] == "chapter":
            titles = [read_notebook(path).cells[0].source.splitlines()[0] for path in notebooks()]
            assert [f"# {option}" for option in field["attributes"]["options"]][:-1] == titles


def test_chapters_are_those_of_the_syllabus_and_the_built_ones_are_linked():
    rows = CHAPTER.findall(README)
    assert [number for number, *_ in rows] == [stem[:2] for stem in syllabus()]
    ready = {file: state for _, _, file, _, _, state in rows if file}
    assert ready == {path.relative_to(ROOT).as_posix(): "ready" for path in notebooks()}
    assert {state for _, _, file, _, _, state in rows if not file} <= {"planned"}


def test_exercises_and_hours_of_the_core_are_those_of_its_chapters():
    core = [read_notebook(path) for path in notebooks()]
    times = [re.search(r"^\| \*\*Time\*\* \| about (\w+) hours, ", nb.cells[0].source, re.M) for nb in core]
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    hours = sum(words.index(time[1]) for time in times)
    total = sum(len(exercises(nb)) for nb in core)
    assert f"core path: {total} exercises, about {hours} hours;" in README


def test_both_commands_start_from_a_clean_clone():
    commands = {name: block.splitlines() for name, block in COMMAND.findall(README)}
    assert set(commands) == {"open", "test"}
    for lines in commands.values():
        assert lines[:2] == ["python3 -m venv .venv", "source .venv/bin/activate"]
        assert lines[2] == "pip install -r requirements.txt"
    assert commands["open"][3:] == [f"jupyter lab {notebooks()[0].relative_to(ROOT).as_posix()}"]
    assert commands["test"][3:] == ["pytest --nbval"]


def test_pictures_are_there_and_described_in_words():
    pictures = re.findall(r"!\[([^]]*)\]\(([^)]+)\)", README)
    assert pictures
    for words, file in pictures:
        assert len(words.split()) >= 8
        assert (ROOT / file).read_bytes().startswith(b"\x89PNG")
