"""The README and the pages of `docs/`: their sections, code blocks, links and anchors."""

import re
from dataclasses import dataclass
from pathlib import Path

from programs import REPOSITORY

README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").glob("*.md"))]

_FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        language: The word after its backticks.
        text: Its lines.
    """

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that the block is, from its first line: `# my_schedules.py`."""
        name = re.match(r"# (\w+\.(?:py|toml))\n", self.text)
        return name[1] if name else None

    @property
    def commands(self) -> list[str]:
        """The command lines of a console block. A backslash continues a line."""
        return self.text.replace("\\\n", "").splitlines()


@dataclass(frozen=True)
class Section:
    """A section of a page: the text below a heading of the second level, or above the first of these."""

    page: Path
    title: str
    text: str

    @property
    def blocks(self) -> list[Block]:
        return [Block(*found) for found in _FENCED.findall(self.text)]

    @property
    def examples(self) -> list[Block]:
        """The blocks that a test runs: commands, Python, and files that these use."""
        return [block for block in self.blocks if block.language in ("console", "python", "toml")]

    def __str__(self) -> str:
        return f"{self.page.name}: {self.title}"


def sections_of(page: Path) -> list[Section]:
    """Return the sections of a page."""
    parts = re.split(r"^## (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [Section(page, title, text) for title, text in zip(["top", *parts[1::2]], parts[::2], strict=True)]


def section(page: str, title: str) -> Section:
    """Return a section of a page by its title."""
    return next(found for found in sections_of(REPOSITORY / page) if found.title == title)


def outside_code(text: str) -> str:
    """Return a text without its code blocks."""
    return _FENCED.sub("", text)


def anchors_of(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", outside_code(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links_of(path: Path) -> list[str]:
    """Return the targets of the links and pictures of a page."""
    return re.findall(r"\]\(([^)\s]+)\)", outside_code(path.read_text(encoding="utf-8")))
