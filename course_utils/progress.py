"""Which exercises are solved: `python -m course_utils.progress` shows it, chapter by chapter.

The first ✔ of an exercise adds a line such as `tensors.invert` to progress.txt in the course's folder; a
later ✘ takes nothing away. Lines are only appended, so that notebooks open at once lose nothing. To begin
anew, delete the file. The environment variable `COURSE_PROGRESS` names another file (a relative path
starts from the course's folder), or is `off`, in capital or small letters.
"""

import functools
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

COURSE = Path(__file__).resolve().parents[1]
REMEDY = "Set COURSE_PROGRESS to a file that you may read and write, or to off."


class Chapter(NamedTuple):
    """A chapter's number, such as `01`, its title, and its exercises, such as `tensors.invert`."""

    number: str
    title: str
    exercises: list[str]


@functools.cache
def chapters() -> list[Chapter]:
    """Return the chapters in order, read from the text of the checkers: to import them all takes long."""
    found = []
    for path in (COURSE / "course_utils" / "exercises").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if opening := re.match(r'"""The checkers of chapter (\d\d), (.+?)[.:] ', text):
            names = re.findall(r"^@exercise\(.*?^(?:def|class) (\w+)", text, re.M | re.S)
            found.append(Chapter(*opening.groups(), [f"{path.stem}.{name}" for name in names]))
    return sorted(found)


def progress_file() -> Path | None:
    """Return where the learner's file is, or will be; None if `COURSE_PROGRESS` is `off`."""
    name = os.environ.get("COURSE_PROGRESS") or "progress.txt"
    return None if name.lower() == "off" else COURSE / name


def read(file: Path) -> set[str]:
    """Return the solved exercises that a file names, none if there is no file; other lines do not count.

    Raises:
        OSError: the file is there, but cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return set()
    known = {exercise for chapter in chapters() for exercise in chapter.exercises}
    return known.intersection(line.strip() for line in lines)


def record(exercise: str) -> str | None:
    """Keep that an exercise is solved; return what to tell the learner.

    Args:
        exercise: such as `tensors.invert`. One that is in no chapter is not kept, and nothing is told.
    """
    file = progress_file()
    chapter = next((chapter for chapter in chapters() if exercise in chapter.exercises), None)
    if file is None or chapter is None:
        return None
    try:
        solved = read(file)
        if exercise not in solved:
            with file.open("a", encoding="utf-8") as lines:
                lines.write(f"\n{exercise}")  # the line break first: a last line may lack its own
    except OSError as error:
        return f"not kept: {file}: {error.strerror}. {REMEDY}"
    return standing(chapter, solved | {exercise})


def standing(chapter: Chapter, solved: set[str]) -> str:
    """Return how far a chapter is solved, such as `chapter 01: 3 of 14 solved`; at its end, what is next."""
    done, total = len(solved.intersection(chapter.exercises)), len(chapter.exercises)
    if done < total:
        return f"chapter {chapter.number}: {done} of {total} solved"
    left = [c for c in chapters() if not solved.issuperset(c.exercises)]
    later = [c for c in left if c.number > chapter.number] or left
    then = f"Next: chapter {later[0].number}, {later[0].title}" if later else "So is the course. Well done!"
    return f"chapter {chapter.number}: all {total} solved. {then}"


def main() -> None:
    """Print how many exercises of each chapter are solved and, where some are, the names of the others."""
    file = progress_file()
    if file is None:
        sys.exit("COURSE_PROGRESS is off, so that no progress is kept: unset it.")
    try:
        solved = read(file)
    except OSError as error:
        sys.exit(f"{file}: {error.strerror}. {REMEDY}")
    for number, title, exercises in chapters():
        left = [exercise.partition(".")[2] for exercise in exercises if exercise not in solved]
        print(f"{number}  {title:<24}{len(exercises) - len(left):>3} of {len(exercises):>2} solved")
        if 0 < len(left) < len(exercises):
            print(textwrap.indent(textwrap.fill(f"left: {', '.join(left)}", 76), "    "))
    total = sum(len(chapter.exercises) for chapter in chapters())
    print(f"\n{len(solved)} of {total} solved, as kept in {file}")


if __name__ == "__main__":
    main()
