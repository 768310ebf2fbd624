"""Command lines with hostile arguments."""

import os
from collections.abc import Sequence
from pathlib import Path

from command_line import parsers
from wrong_values import WRONG_VALUES, typed

from fuzzing.case import OUTPUT, SMALL, Case, make_socket
from fuzzing.values import CONTROL, LITERALS, NEW_PATHS, PATHS, TEXTS

_BASES: dict[str, Sequence[str]] = {
    "train": (*SMALL, "--quiet", "--output", OUTPUT),
    "compare": ("quick", *SMALL, "--quiet", "--seeds=1,1", "--output", OUTPUT),  # a seed is given twice, so it never trains
    "launch": ("--workers=2", "--servers=0", "--", "train", *SMALL),
    "find-lr": ("--train-images=64", "--iterations=20", "--threads=1", "--quiet", "--output", OUTPUT),
    "evaluate": ("run", "--test-images=10"),
    "predict": ("run", "digit.png"),
    "export": ("run", "--format=mxnet", "--output", OUTPUT),
    "demo": ("run", "--port=0"),
    "schedules list": (),
    "schedules show": ("quick", "--iterations=1,2,100"),
    "schedules plot": ("quick", "--output=output.png"),
    "completion": ("bash",),
    "data verify": (),
    "data fetch": ("--data-dir=output", "--mirror=file:///nowhere", "--quiet"),
    "benchmark": ("--implementations=none", "--quiet"),  # an unknown implementation, so it never trains
    "doctor": ("--threads=1",),
    "": (),
}
"""Command → arguments that are correct, or wrong if the command would take long."""

_READ = {"--config", "--resume", "--data-dir", "--mirror", "--peer-python"}
_NEVER = {"--help", "--version", "--seeds", "--servers", "--implementations"}  # would replace what keeps a command short


def command_line(case: Case) -> None:
    """Make a command line with one to three hostile arguments."""
    command = case.row(list(_BASES))
    parser = _PARSERS[command]
    words = [*_BASES[command]]
    flags = sorted({flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")} - _NEVER)
    for _ in range(case.chance.choice((1, 1, 2, 3))):
        make = case.chance.choice(_MISTAKES)
        case.alterations.append(make.__name__)
        make(case, command, words, flags)
    if "run" in words or any("run" in word for word in words):
        case.copy_finished()
    case.picture()
    _add_special_files(case.cwd, case.victim)
    case.named |= {OUTPUT, "output.png", "output-symbol.json", "output-0000.params"}
    case.may_be_long = command in ("train", "find-lr")
    case.use(*command.split(), *(word.replace("\0", "") for word in words))


_PARSERS = parsers()


def _flag_value(case: Case, command: str, words: list[str], flags: Sequence[str]) -> None:
    if not flags:
        return _any_word(case, command, words, flags)
    flag = case.chance.choice(flags)
    value = _value_of(case, command, flag)
    words[:0] = [f"{flag}={value}"] if case.chance.random() < 0.5 else [flag, value]
    if flag == "--output":  # the last one counts
        words[:] = [word for word in words if word not in ("--output", OUTPUT, "--output=output.png")]
        case.named |= {value.split("/")[0], f"{value}-symbol.json", f"{value}-0000.params"}
    return None


def _value_of(case: Case, command: str, flag: str) -> str:
    if flag == "--output" or (command == "data fetch" and flag == "--data-dir"):
        return str(case.chance.choice(NEW_PATHS))
    if flag in _READ:
        return str(case.chance.choice(PATHS))
    if flag == "--set":
        return _setting(case)
    if flag == "--schedule":
        return _expression(case)
    return str(case.chance.choice(TEXTS))


_EXPRESSIONS = (
    *("Cosine(max_update=1)", "Warmup(Cosine(max_update=1), 1)", "Sequential([Constant(0.1), Constant(0.2)], [1])"),
    *("one-cycle", "MULTI_FACTOR", "plateau", "Constant(base_lr=0.1)", "no_such_module:f(a=1)", "Scale(os:system(a=1), 1)"),
    *("()", "[]", "Cosine(", "__import__('os').system('touch mark')", "exec('1')(2)", "(lambda k: 1)(1)", "Cosine(**{'a': 1})"),
    *("(" * 1900, "-" * 1900 + "()", "a" + ".a" * 900 + "()", "Repeat(" * 200 + ")" * 200, "Cosine(" + "9" * 1900 + ")"),
)


def _expression(case: Case) -> str:
    """Return an argument of --schedule: an expression with some characters changed, or any text."""
    if case.chance.random() < 0.3:
        return str(case.chance.choice(TEXTS))
    characters = list(case.chance.choice(_EXPRESSIONS))
    for _ in range(case.chance.choice((0, 0, 1, 3))):
        characters[case.chance.randrange(len(characters))] = case.chance.choice("()[]{},=.:'\"*-+ 0Aé\\")
    return "".join(characters)


def _setting(case: Case) -> str:
    """Return an argument of --set."""
    if case.chance.random() < 0.2:
        return str(
            case.chance.choice([*TEXTS, "training.epochs", "training.=1", ".=1", "a.b.c.d=1", "training=1", "schedule={}"])
        )
    key = case.chance.choice(
        [*WRONG_VALUES, "schedule", "optimizer", "momentum", "wd", "schedule.curve.name", "schedule.curves[0]"]
    )
    value = case.chance.choice([*TEXTS, *LITERALS, *map(typed, WRONG_VALUES.get(key, ()))])
    return f"{key}={value}"


def _any_word(case: Case, _command: str, words: list[str], _flags: Sequence[str]) -> None:
    words.insert(case.chance.randrange(len(words) + 1), case.chance.choice([*TEXTS, *PATHS]))


def _replaced_word(case: Case, command: str, words: list[str], flags: Sequence[str]) -> None:
    if command in ("compare", "launch", "benchmark", "data fetch") or not words:
        return _any_word(case, command, words, flags)
    place = case.chance.randrange(len(words))
    if not words[place].startswith("-") and words[place] != OUTPUT:
        words[place] = case.chance.choice(PATHS)
    return None


def _unknown_flag(case: Case, _command: str, words: list[str], flags: Sequence[str]) -> None:
    flag = case.chance.choice([*flags, "--epochs"])
    words.insert(
        0, case.chance.choice([flag[:-1], flag.upper(), f"{flag}s", f"{flag}{CONTROL}=1", f"-{flag}", flag.replace("-", "_")])
    )


def _flag_without_value(case: Case, _command: str, words: list[str], flags: Sequence[str]) -> None:
    words.append(case.chance.choice([*flags, "--set"]))


def _many_words(case: Case, _command: str, words: list[str], flags: Sequence[str]) -> None:
    words += [case.chance.choice([*flags, "--set=training.epochs=0", "x", "--set=a=b"])] * 300


_MISTAKES = [
    _flag_value,
    _flag_value,
    _flag_value,
    _flag_value,
    _any_word,
    _replaced_word,
    _unknown_flag,
    _flag_without_value,
    _many_words,
]


def _add_special_files(folder: Path, victim: Path) -> None:
    (folder / "link").symlink_to(victim)
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    make_socket(folder / "socket")
