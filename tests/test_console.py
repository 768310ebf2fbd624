"""Text from others on a terminal and in Markdown: control characters are escaped, and markup is shown as text."""

import io
import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import cmarkgfm
import pytest
from cmarkgfm.cmark import Options
from command_line import refused, run
from conftest import Program
from drawn_digits import enlarged
from hypothesis import given
from hypothesis import strategies as st

from mnist_trainer.console import Console, as_code_block, as_markdown, in_columns, in_markdown, print_lines, printable, say
from mnist_trainer.data.mnist_files import Split
from mnist_trainer.progress import progress_bar

# --- terminals

HOSTILE = "a\x1b]0;owned\x07b\r\x9b2Jc\x7f\u202ed\u2028e\u2066f\x85"
HARMLESS = r"a\x1b]0;owned\x07b\x0d\x9b2Jc\x7f\u202ed\u2028e\u2066f\x85"

DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


INVISIBLE = re.compile("[\u00ad\u180e\u200b\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0001\U000e0020-\U000e007f]")


def is_control(character: str) -> bool:
    return (
        unicodedata.category(character) in {"Cc", "Zl", "Zp"}
        or unicodedata.bidirectional(character) in DIRECTIONS
        or character in "\N{ARABIC LETTER MARK}\N{LEFT-TO-RIGHT MARK}\N{RIGHT-TO-LEFT MARK}"
        or (unicodedata.category(character) in {"Cf", "Cn"} and INVISIBLE.fullmatch(character) is not None)
    )


def test_all_control_characters_and_no_others_are_escaped() -> None:
    for character in map(chr, range(sys.maxunicode + 1)):
        if character == "\n" or not (is_control(character) or unicodedata.category(character) == "Cs"):
            assert printable(character) == character
        else:
            code = ord(character)
            assert printable(character) == (
                f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
            )


@pytest.mark.parametrize(
    ("show", "prefix"),
    [
        (say, "mnist-trainer: "),
        (Console().say, "mnist-trainer: "),
        (print_lines, ""),
        (Console().print, ""),
        (Console().note, ""),
    ],
)
@pytest.mark.parametrize("with_tqdm", [False, True])
def test_everything_that_is_printed_is_escaped(
    show: Callable[[str], None],
    prefix: str,
    with_tqdm: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not with_tqdm:
        monkeypatch.delitem(sys.modules, "tqdm", raising=False)
    show(HOSTILE)
    assert "".join(capsys.readouterr()) == f"{prefix}{HARMLESS}\n"


def test_a_newline_in_a_name_begins_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines("one\ntwo", "three")
    say("one\ntwo")
    out, err = capsys.readouterr()
    assert out == "one\\ntwo\nthree\n"
    assert err == "mnist-trainer: one two\n"


def test_the_title_of_a_progress_bar_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar(HOSTILE, 3) as bar:
        bar.update()
    assert f"{HARMLESS} " in terminal.getvalue()
    assert not {"\x1b]", "\x07", "\x9b", "\u202e"} & set(terminal.getvalue())


def test_code_that_a_stranger_names_cannot_hide_the_question_of_trust(trained_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained_run, tmp_path / "run"))
    config = (folder / "config.toml").read_text(encoding="utf-8")
    hostile = '[model]\nnetwork = "mine:\\u001b[2K\\u202emlp"'
    (folder / "config.toml").write_text(config.replace("[model]", hostile, 1), encoding="utf-8")
    for command in ("evaluate", "export --format onnx", "demo"):
        (message,) = refused(*command.split(), folder)
        assert r"\x1b[2K\u202emlp" in message
        assert not any(map(is_control, message))
    (folder / "summary.json").unlink()
    (message,) = refused("train", "--resume", folder)
    assert r"\x1b[2K\u202emlp" in message
    assert not any(map(is_control, message))


def test_names_of_files_are_escaped_but_exact_in_json(trained_run: Path, test_split: Split, tmp_path: Path) -> None:
    picture = tmp_path / f"{HOSTILE}\n.png"
    picture.write_bytes(b"no picture")
    code, out, err = run("predict", trained_run, picture)
    assert (code, out) == (2, "")
    assert err.startswith(f"mnist-trainer: {tmp_path}/{HARMLESS} .png: ")
    picture.write_bytes(enlarged(test_split.images[0]))
    code, out, err = run("predict", trained_run, picture)
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path}/{HARMLESS}\\n.png: ")
    assert len(out.splitlines()) == 1
    code, out, err = run("predict", trained_run, picture, "--json")
    assert json.loads(out)["picture"] == str(picture)


@pytest.mark.process
def test_a_users_exception_is_escaped(tmp_path: Path, program: Program) -> None:
    (tmp_path / "mine.py").write_text(f"raise ValueError({HOSTILE!r})", encoding="utf-8")
    done = program("train", "--set", "model.network=mine:mlp")
    assert done.returncode == 2
    assert HARMLESS in done.stderr
    assert not any(map(is_control, done.stderr.replace("\n", "")))


# --- Markdown


class Rendered(HTMLParser):
    """The text and the tags of rendered Markdown."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        # GitHub's own parser, with raw HTML as in GitHub's files.
        self.feed(cmarkgfm.github_flavored_markdown_to_html(markdown, options=Options.CMARK_OPT_UNSAFE))
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


NAMES = [
    "<script>alert(1)</script>",
    "<!-- hidden",
    "<https://example.com>",
    "https://example.com",
    "www.example.com",
    "[a](https://example.com)",
    "![a](b.png)",
    "[a]: b",
    "*a* **b** _a_ __b__ a_b_ ~~c~~",
    "__a _b a__ b_",
    "`code` ``a` b``",
    "a | b \\| c \\",
    "&lt;b&gt; &#60; &amp",
    "# a #",
    "- a",
    "+ a",
    "---",
    "1. a",
    "12) a",
    "> a",
    "```",
    "~~~",
    "$a$",
    "a\\_b\\*",
    "    a",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_rendered_as_its_own_text(name: str) -> None:
    assert_rendered_as_text(name)


@given(st.text(st.sampled_from("ab1 _*`~<>[]()!|\\&;#:/.w+-=\"'$\n\té")))
def test_any_text_is_rendered_as_itself(text: str) -> None:
    assert_rendered_as_text(text)


def assert_rendered_as_text(text: str) -> None:
    markdown = as_markdown(text)
    shown = printable(text).replace("\n", "\\n").split()
    for source, tags in (
        (f"{markdown} end.", {"p"}),
        (f"- {markdown} end.", {"ul", "li"}),
        (f"# {markdown}", {"h1"}),
        ("\n".join(in_markdown([("heading", "other"), (markdown, "1")])), {"table", "thead", "tbody", "tr", "th", "td"}),
    ):
        rendered = Rendered(source)
        assert set(rendered.tags) == tags, source
        found = rendered.text.replace("heading", "").replace("other", "").split()
        if "table" in tags:
            assert found == [*shown, "1"], source
        else:
            assert " ".join(found).removesuffix("end.").strip() == " ".join(shown), source


@pytest.mark.parametrize("name", ["one-cycle", "my_config", "a_b__c", "cosine, optimizer, seed 1", "+0.03 ± 0.38 (n = 3)"])
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert as_markdown(name) == name


COMMANDS = ["compare '<b>' \\<b> *a* `b`", "compare 'two\n\n- lines\n```\n<b>'", "\n    compare\x1b", "data"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_stays_in_its_block(command: str) -> None:
    rendered = Rendered("\n".join(["A paragraph.", "", *as_code_block(f"mnist-trainer {command}"), "", "Another."]))
    assert rendered.tags == ["p", "pre", "code", "p"]
    assert rendered.text == f"A paragraph.\nmnist-trainer {printable(command)}\n\nAnother.\n"


def test_a_table_that_is_too_wide_is_printed_in_parts() -> None:
    table = [("name", "first", "second", "third"), ("a", "1", "22", "333"), ("bb", "4", "5", "6")]
    assert in_columns(table, 28) == in_columns(table)
    assert in_columns(table, 21) == [
        "name  first  second",
        "a         1      22",
        "bb        4       5",
        "",
        "name  third",
        "a       333",
        "bb        6",
    ]
    narrow = in_columns(table, 5)  # a column is never cut
    assert [line for line in narrow if "name" in line] == ["name  first", "name  second", "name  third"]
