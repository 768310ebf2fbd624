"""`mnist-trainer completion`: print a script that completes commands, flags and their values in a shell.

The script is made of the parser, so it has every flag. Values that are not known, such as run folders, are completed as files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mnist_trainer.commands.request import Arguments
from mnist_trainer.config.loading import bundled_configs
from mnist_trainer.config.optimizers import OPTIMIZERS
from mnist_trainer.config.schema import field_of
from mnist_trainer.console import print_lines
from mnist_trainer.errors import DONE
from mnist_trainer.fields import Choice, Or
from mnist_trainer.schedules import CURVES


def completion(arguments: Arguments) -> int:
    """Run `mnist-trainer completion`; return the exit code."""
    commands = dict(_commands(arguments.build_parser(), ""))
    print_lines(*{"bash": _bash, "zsh": _zsh, "fish": _fish}[arguments.shell](commands))
    return DONE


@dataclass(frozen=True)
class _Flag:
    """A flag.

    Attributes:
        spellings: Its spellings.
        sentence: Its help.
        takes_value: True if a value follows.
        values: The values that are known.
        takes_file: True if the value can be a file, although values are known.
    """

    spellings: tuple[str, ...]
    sentence: str
    takes_value: bool
    values: tuple[str, ...] = ()
    takes_file: bool = False


@dataclass(frozen=True)
class _Command:
    """A command, or a group of commands.

    Attributes:
        below: The commands of a group, each with its help.
        flags: The flags.
        words: Known values of its arguments other than flags.
        takes_files: True if these arguments can be files or names.
    """

    below: Mapping[str, str]
    flags: tuple[_Flag, ...]
    words: tuple[str, ...]
    takes_files: bool


def _commands(parser: Any, name: str) -> Iterator[tuple[str, _Command]]:
    """Yield each command by the words of its name, the program itself as ""."""
    parser.complete()
    groups = [action for action in parser._actions if hasattr(action, "_choices_actions")]
    below = {choice.dest: choice.help or "" for group in groups for choice in group._choices_actions}
    arguments = [action for action in parser._actions if not action.option_strings and action not in groups]
    words = tuple(word for action in arguments for word in _values(action.dest, parser))
    takes_files = any(action.dest not in parser.kinds for action in arguments)
    flags = tuple(_flag(action, parser) for action in parser._actions if action.option_strings)
    yield name, _Command(below, flags, words, takes_files)
    children: dict[str, Any] = {word: child for group in groups for word, child in group.choices.items()}
    for word, child in children.items():
        yield from _commands(child, f"{name} {word}".strip())


def _flag(action: Any, parser: Any) -> _Flag:
    takes_value = action.nargs != 0
    values = _values(action.dest, parser) if takes_value else ()
    sentence = " ".join((action.help or "").split())
    return _Flag(tuple(action.option_strings), sentence, takes_value, values, action.dest == "config")


def _values(name: str, parser: Any) -> tuple[str, ...]:
    """Return the known values of an argument."""
    schedules = tuple(curve.__name__ for curve in CURVES)
    known = {
        "config": tuple(bundled_configs()),
        "configs": tuple(bundled_configs()),
        "optimizer": tuple(OPTIMIZERS),
        "schedule": schedules,
        "schedules": (*schedules, "all"),
        "device": ("auto", "cpu", "gpu"),
        "rest": ("train",),
    }
    if name in known:
        return known[name]
    kind = parser.kinds[name][1] if name in parser.kinds else None
    key = next((key for key in parser.get_default("config_keys") or () if key.endswith(f".{name}")), "")
    if spec := field_of(key):
        kind = spec.metadata["kind"]
    constants = []
    while isinstance(kind, Or):
        constants += [kind.constant] if kind.constant else []
        kind = kind.kind
    return (*constants, *(kind.choices if isinstance(kind, Choice) else ()))


def _moves(commands: Mapping[str, _Command]) -> dict[str, str]:
    """Return the command so far and the next word, with a space between → the command that they make."""
    return {name if " " in name else f" {name}": name for name in commands if name} | {"launch train": "train"}


_BASH = """\
_mnist_trainer() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command= words= word
    if [[ $current == = ]]; then current=
    elif [[ $previous == = ]]; then previous=${COMP_WORDS[COMP_CWORD-2]}
    fi
    for word in "${COMP_WORDS[@]:1:$((COMP_CWORD-1))}"; do
        case "$command $word" in
@moves@
        esac
    done
    case "$command $previous" in
@values@
        *) case "$command:$current" in
@words@
        esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    if [[ $previous == --config ]]; then COMPREPLY+=($(compgen -f -- "$current")); fi
}
complete -o default -F _mnist_trainer mnist-trainer"""

_ZSH = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
autoload -Uz bashcompinit && bashcompinit"""


def _bash(commands: Mapping[str, _Command]) -> list[str]:
    values, words = [], []
    for name, command in commands.items():
        for flag in command.flags:
            if flag.takes_value:
                patterns = "|".join(f'"{name} {spelling}"' for spelling in flag.spellings)
                values.append(f'        {patterns}) words="{" ".join(flag.values)}" ;;')
        flags = " ".join(spelling for flag in command.flags for spelling in flag.spellings if spelling.startswith("--"))
        words.append(f'            "{name}:-"*) words="{flags}" ;;')
        others = [*command.below, *command.words]
        words.append(f'            "{name}:"*) words="{" ".join(others) if others or command.takes_files else flags}" ;;')
    moves = [f'            "{move}") command="{target}" ;;' for move, target in _moves(commands).items()]
    lines = {"@moves@": moves, "@values@": values, "@words@": words}
    return [filled for line in _BASH.splitlines() for filled in lines.get(line, [line])]


def _zsh(commands: Mapping[str, _Command]) -> list[str]:
    return [*_ZSH.splitlines(), *_bash(commands)]  # zsh runs the script for bash


def _fish(commands: Mapping[str, _Command]) -> list[str]:
    moves = [
        line
        for move, target in _moves(commands).items()
        for line in (f"            case {_quoted(move)}", f"                set name {_quoted(target)}")
    ]
    lines = [
        "function __mnist_trainer_at",
        "    set -l name ''",
        "    for word in (commandline -opc)[2..]",
        '        switch "$name $word"',
        *moves,
        "        end",
        "    end",
        '    test "$name" = "$argv[1]"',
        "end",
    ]
    for name, command in commands.items():
        start = f"complete -c mnist-trainer -n {_quoted(f'__mnist_trainer_at {_quoted(name)}')}"
        if not command.takes_files:
            lines.append(f"{start} -f")
        lines += [f"{start} -f -a {word} -d {_quoted(sentence)}" for word, sentence in command.below.items()]
        # After `--` fish completes no flags, so those of `launch … -- train` are not completed.
        lines += [f"{start} -a {_quoted(' '.join(command.words))}"] if command.words else []
        for flag in command.flags:
            names = " ".join(f"-l {spelling[2:]}" for spelling in flag.spellings if spelling.startswith("--"))
            known = f" -a {_quoted(' '.join(flag.values))}" if flag.values else ""
            value = ("" if not flag.takes_value else " -r" if flag.takes_file or not flag.values else " -x") + known
            lines.append(f"{start} {names}{value} -d {_quoted(flag.sentence)}")
    return lines


def _quoted(text: str) -> str:
    """Return a text in the quotes of fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
