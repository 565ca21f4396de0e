"""README.md, and data/README.md's links, against what the repository holds."""

import re

import pytest
from notebook_tools import ROOT, notebooks, syllabus

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"^<!-- command: (\w+) -->\n```bash\n(.*?)^```$", re.S | re.M)
CHAPTER = re.compile(r"^\| (\d\d) \| (?:\[([^]]+)\]\((\S+)\)|([^|]+)) \| ([^|]+) \| (\w+) \|$", re.M)
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


@pytest.mark.parametrize("document", ["README.md", "data/README.md"])
def test_relative_links_resolve(document):
    path = ROOT / document
    text = path.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for link in LINK.findall(text):
        file, _, anchor = link.partition("#")
        assert (path.parent / file).exists(), link
        assert not anchor or (not file and anchor in anchors), link


def test_chapters_are_those_of_the_syllabus_and_the_built_ones_are_linked():
    rows = CHAPTER.findall(README)
    assert [number for number, *_ in rows] == [stem[:2] for stem in syllabus()]
    ready = {file: state for _, _, file, _, _, state in rows if file}
    assert ready == {path.relative_to(ROOT).as_posix(): "ready" for path in notebooks()}
    assert {state for _, _, file, _, _, state in rows if not file} <= {"planned"}


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
