"""The schedules of other frameworks, by their names, and ours for them.

`dictionary.json` has the translations. `scripts/make_docs.py tables` makes it from the golden tables, so a test has compared
the rates of each.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mnist_trainer.console import shown
from mnist_trainer.fields import did_you_mean

_CLOCKS = {
    "update k": "Iteration k has the {rate} of update k there.",
    "count k": "Iteration k has the {rate} after k steps there. Shift(…, by=-1) has the {rate} of the same update.",
    "": "The {rate} after each validation is the same.",
}


@dataclass(frozen=True)
class Translation:
    """A schedule of another framework, and ours for it.

    Attributes:
        framework: The name of the framework, such as "PyTorch".
        module: Its module, such as "torch.optim.lr_scheduler".
        names: The names of the schedule there.
        call: An example of its call.
        ours: Our schedule with the same rates, as an expression.
        at: "update k" if the rate of our iteration k is that of its update k, "count k" if it is the rate after k steps, "" for
            a schedule that reacts to results.
        section: The table of a configuration: "schedule", or "momentum" for a scheduled momentum.
        notes: Differences, and what else there is to know.
    """

    framework: str
    module: str
    names: tuple[str, ...]
    call: str
    ours: str
    at: str
    section: str
    notes: tuple[str, ...]

    @property
    def sentences(self) -> list[str]:
        """The clock and the notes, in words."""
        clock = _CLOCKS[self.at].format(rate="momentum" if self.section == "momentum" else "rate")
        return [clock, *(f"Note: {note}." for note in self.notes)]


@cache
def translations() -> tuple[Translation, ...]:
    """Return all translations, in the order of the frameworks."""
    text = Path(__file__).with_name("dictionary.json").read_text(encoding="utf-8")
    return tuple(Translation(**row | {"names": tuple(row["names"]), "notes": tuple(row["notes"])}) for row in json.loads(text))


def find_translations(name: str) -> list[Translation]:
    """Return the translations of a name.

    Args:
        name: The name of a schedule in another framework; capitals, hyphens and underscores do not matter. The name of the
            framework or of its module may precede it, as in "paddle.OneCycleLR". Arguments in parentheses are ignored.

    Raises:
        ValueError: No framework has it. The message has the nearest name.
    """
    where, _, wanted = name.partition("(")[0].strip().rpartition(".")
    place = plain(where.rpartition(".")[2])
    found = [
        translation
        for translation in translations()
        if plain(wanted) in map(plain, translation.names)
        and (not place or place in map(plain, (translation.framework, *translation.module.split("."))))
    ]
    if not found:
        hint = did_you_mean(wanted, names(), "`mnist-trainer schedules find` lists all names")
        raise ValueError(f"no schedule of another framework has the name {shown(name)}; {hint}")
    return found


def names() -> list[str]:
    """Return all names in other frameworks, without duplicates."""
    return list(dict.fromkeys(name for translation in translations() for name in translation.names))


def hint_for(name: str) -> str:
    """Return the end of a message about an unknown name that is one of another framework, or "" if it is not."""
    try:
        found = find_translations(name)
    except ValueError:
        return ""
    of = found[0].framework
    known = next(known for known in found[0].names if plain(known) in plain(name))
    return f"that of {of} has another name here, which `mnist-trainer schedules find {known}` prints"


def plain(name: str) -> str:
    """Return a name without its hyphens, underscores and capitals."""
    return name.replace("_", "").replace("-", "").lower()


def counterparts(curve: str) -> list[str]:
    """Return the names in other frameworks for a curve of this package, each with its framework."""
    found = (translation for translation in translations() if translation.ours.partition("(")[0] == curve)
    return list(dict.fromkeys(f"{translation.names[0]} ({translation.framework})" for translation in found))
