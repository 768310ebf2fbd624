"""The prose of the package, its scripts, tests and documents: what a program can see of plain English.

The phrases are those that the project has had to rewrite. A reader has to see the rest.
"""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from programs import REPOSITORY

OPENINGS = re.compile(r"(Has|How|In|Of|What|Whatever|Whether|Which|Who|Whoever|Whose)\b")
"""First words of a docstring that begin an inverted or a subordinate clause."""

PHRASES = {
    r"\bg(o|oes|oing|one) on (with|from)\b": "resume, continue",
    r"\bhow to go on\b": "how to resume",
    r"\bpassed over\b": "skipped",
    r"\b(cannot|can not|to) be had\b": "is not available",
    r"\bwhoever\b": "anyone who",
    r"\bfor ever\b": "forever",
    r"\b(is|are|was|be) told\b": "name who knows what",
    r"\bto be told from\b": "differs from",
    r"\ba sentence each\b": "a message for each",
    r"\brightly\b": "correctly",
    r"\balien\b": "foreign, other",
    r"\brobbed\b": "without",
    r"\b(file|folder|manifest|configuration|table|message|line|header|key|summary|README) (say|tell)s?\b": "has, states",
    r"(?<!there )\b(is|are|was) no (?!longer\b|more\b|less\b|better\b|worse\b|later\b|fewer\b)\w": "is not a",
    r"\bcannot be said\b": "is unknown",
    r"\bbe it\b": "whether",
    r"\bnought\b": "nothing, zero",
    r"\bnobody\b": "no one, nothing",
    r"\bso many (bytes|times|minutes|images)\b": "N",
    r"\bhas not (a|one)\b": "does not have",
    r"\bwhat was done until now\b": "the results so far",
    r"\b(a row|an object|seconds|milliseconds|ms) an? (iteration|epoch|batch|picture)\b": "per",
    r"\bof (one's|your|my|their|his) own (accord|making)\b": "yours",
}
"""A regular expression of a phrase → better words."""

SOURCES = [path for folder in ("mnist_trainer", "scripts", "tests") for path in sorted((REPOSITORY / folder).rglob("*.py"))]
OTHER_CODE = [
    path
    for folder, pattern in (
        ("mnist_trainer", "*.cc"),
        ("mnist_trainer", "*.h"),
        ("mnist_trainer", "*.html"),
        ("mnist_trainer", "*.js"),
        ("scripts", "*.sh"),
        ("configs", "*.toml"),
    )
    for path in sorted((REPOSITORY / folder).rglob(pattern))
]
DOCUMENTS = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    REPOSITORY / "data/mnist/README.md",
]


def docstrings_of(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield statement.lineno, value.value


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the strings and comments of a module, with their lines. Neighbouring comments are one text."""
    comment: list[str] = []
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                comment.append(token.string.lstrip("# "))
            elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
                if comment:
                    yield token.start[0] - 1, " ".join(comment)
                    comment = []
                if token.type == tokenize.STRING or token.type == getattr(tokenize, "FSTRING_MIDDLE", -1):
                    yield token.start[0], token.string


def complaints(text: str) -> list[str]:
    text = re.sub(r"\s+", " ", text)
    found = ((re.search(phrase, text, re.IGNORECASE), better) for phrase, better in PHRASES.items())
    return [f"{match[0]!r}: better {better!r}" for match, better in found if match]


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    found = [
        f"{name_of(path)}:{line}: {text[:60]}" for path in SOURCES for line, text in docstrings_of(path) if OPENINGS.match(text)
    ]
    assert not found, "\n".join(found)


def test_docstrings_messages_and_comments_are_free_of_phrases_to_avoid() -> None:
    found = [
        f"{name_of(path)}:{line}: {complaint}"
        for path in SOURCES
        if path != Path(__file__)
        for line, text in prose_of(path)
        for complaint in complaints(text)
    ]
    assert not found, "\n".join(found)


def test_documents_and_other_code_are_free_of_phrases_to_avoid() -> None:
    found = []
    for path in (*OTHER_CODE, *DOCUMENTS):
        text = re.sub(r"^\s*(//|#) ?", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        found += [f"{name_of(path)}: {complaint}" for complaint in complaints(text)]
    assert not found, "\n".join(found)


def test_the_check_sees_what_it_is_for() -> None:
    for text in ("The run is not gone on with.", "the message says", "'x' is no number", "seconds\n    an epoch"):
        assert complaints(text), text
    assert complaints("there is no such file; the run is no longer there") == []
    assert OPENINGS.match("Whoever reads this.")
    assert not OPENINGS.match("Initialize the network.")
