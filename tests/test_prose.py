"""The prose of the package, its scripts, tests and documents: what a program can see of plain English.

The phrases are those that the project has had to rewrite. A reader has to see the rest.
"""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import REPOSITORY

OPENINGS = re.compile(r"(Has|How|In|Of|What|Whatever|Whether|Which|Who|Whoever|Whose)\b")
"""First words of a docstring that begin an inverted or a subordinate clause."""

PHRASES = {
    r"\bg(o|oes|oing|one) on (with|from)\b": ("the run is not gone on with", "resume, continue"),
    r"\bhow to go on\b": ("it prints how to go on", "how to resume"),
    r"\bpassed over\b": ("the default is passed over", "skipped, ignored"),
    r"\b(cannot|to) be had\b": ("the port cannot be had", "is not available"),
    r"\bwhoever\b": ("whoever reads it", "anyone who"),
    r"\bwhatever\b": ("whatever ended the run", "any, regardless of"),
    r"\bfor ever\b": ("it waits for ever", "forever"),
    r"\b(is|are|was|be) told\b": ("the user is told", "name who knows what"),
    r"\bto be told from\b": ("not to be told from nothing", "differs from"),
    r"\ba sentence each\b": ("they get a sentence each", "a message for each"),
    r"\brightly\b": ("read rightly", "correctly"),
    r"\balien\b": ("with alien files", "foreign, other"),
    r"\brobbed\b": ("robbed of a file", "without"),
    r"\b(file|folder|configuration|table|message|line|header|key|summary|README) (say|tell)s?\b": (
        "the key says so",
        "has, states",
    ),
    r"(?<!there )\b(is|are|was) no (?!(longer|more|less|better|worse|later|fewer)\b)\w": ("'x' is no number", "is not a"),
    r"\bcannot be said\b": ("it cannot be said", "is unknown"),
    r"\bbe it\b": ("be it lighter or darker", "whether"),
    r"\bnought\b": ("it comes to nought", "nothing, zero"),
    r"\bnobody\b": ("nobody writes to it", "no one, nothing"),
    r"\bso many (bytes|times|minutes|images)\b": ("so many minutes ago", "N"),
    r"\bhas not (a|one)\b": ("it has not one place", "does not have"),
    r"\bwhat was done until now\b": ("what was done until now is kept", "the results so far"),
    r"\b(a row|an object|seconds|milliseconds|ms) an? (iteration|epoch|batch|picture)\b": ("seconds an epoch", "per"),
    r"\bof (one's|your|my|their|his) own (accord|making)\b": ("a digit of your own making", "yours"),
}
"""Regular expression → an example of the phrase, and better words."""

SOURCES = [path for folder in ("mnist_trainer", "scripts", "tests") for path in sorted((REPOSITORY / folder).rglob("*.py"))]
OTHER_CODE = [
    path
    for folder in ("mnist_trainer", "scripts", "configs")
    for path in sorted((REPOSITORY / folder).rglob("*"))
    if path.suffix in {".cc", ".h", ".html", ".js", ".sh", ".toml"}
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
    found = ((re.search(phrase, text, re.IGNORECASE), better) for phrase, (_, better) in PHRASES.items())
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


@pytest.mark.parametrize(("phrase", "example"), [(phrase, example) for phrase, (example, _) in PHRASES.items()])
def test_a_phrase_to_avoid_is_found(phrase: str, example: str) -> None:
    assert re.search(phrase, example, re.IGNORECASE)
    assert complaints(example)


def test_plain_sentences_are_not_found() -> None:
    assert complaints("There is no such file; the run is no longer there. The table has a row per epoch.") == []
    assert complaints("seconds\n    an epoch"), "a phrase may be broken between lines"
    assert OPENINGS.match("Whoever reads this.")
    assert not OPENINGS.match("Initialize the network.")
