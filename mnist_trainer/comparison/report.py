"""What a comparison found, in words, in tables, and as the content of `comparison.json`. Standard library only."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mnist_trainer.comparison.intervals import CONFIDENCE, Estimate, PairedDifference
from mnist_trainer.comparison.plan import Plan
from mnist_trainer.comparison.results import MILESTONES, Difference, ModeCheck, Result, Results, Standing
from mnist_trainer.console import Table, in_markdown

RECORD = "comparison.json"
TEXT = "comparison.md"
FIGURE = "comparison.png"
PAGE = "comparison.html"


# --- in words


def verdict(results: Results, remarks: Sequence[str] = ()) -> list[str]:
    """What was found, a sentence each, the most important first.

    remarks: further sentences, of what makes it less than certain.
    """
    return [
        *_on_failures(results),
        *_on_modes(results),
        *remarks,
        *(words(each, results.standings[0].candidate.name) for each in results.standings if each.against_first),
        *_on_beginnings(results),
        *_on_what_was_allowed(results),
    ]


def words(standing: Standing, first: str) -> str:
    """What a configuration's test accuracy is beside that of the first."""
    difference = standing.against_first
    assert difference
    name, points = standing.candidate.name, 100 * difference.mean
    if difference.half_width is None:
        return f"{name} is {points:+.2f} points from {first} with a single seed, which says nothing of chance"
    interval = f"± {100 * difference.half_width:.2f} points (n = {difference.n})"
    if difference.is_seen:
        return f"{name} is {'better' if points > 0 else 'worse'} than {first} by {abs(points):.2f} {interval}"
    return f"No difference seen between {name} and {first}: {points:+.2f} {interval}"


def _on_failures(results: Results) -> Iterator[str]:
    for each in results.failed:
        yield f"{each.run} is not finished: {each.problem}"


def _on_modes(results: Results) -> Iterator[str]:
    checks, pairs = results.mode_checks, results.mode_pairs
    wrong = [each for each in checks if not each.is_identical]
    for each in wrong:
        yield f"{each.one.run.candidate.name}, seed {each.one.run.seed}: the scheduler modes differ: {_how_modes_differ(each)}"
    if checks and not wrong:
        rates = f"all {sum(len(each.one.iterations) for each in checks):,} learning rates are the same"
        which = (
            ""
            if pairs == 1
            else f"in each of {pairs} pairs of runs "
            if len(checks) == pairs
            else f"in {len(checks)} of {pairs} pairs of runs "
        )
        yield f"The scheduler modes agree: {which}{rates}, and so are the parameters, to the last bit"


def _how_modes_differ(check: ModeCheck) -> str:
    modes = check.one.run.mode, check.other.run.mode
    told = [
        f"{name} first at iteration {difference.iteration}, {_side_by_side(difference, modes)}"
        for name, difference in (("learning rates", check.learning_rate), ("losses", check.loss))
        if difference
    ]
    if not check.same_parameters:
        told.append("the trained parameters are not the same" if told else "the parameters differ after the last update alone")
    return "; ".join(told)


def _side_by_side(difference: Difference, modes: tuple[str, str]) -> str:
    _, one, other = difference
    return f"{one!r} in {modes[0]} and {other!r} in {modes[1]} (by {abs(one - other):.3g})"


def _on_beginnings(results: Results) -> Iterator[str]:
    if results.begins_alike:
        yield "The runs of a seed begin alike: their losses before the first update are the same to the last bit"
    elif results.begins_alike is not None:
        yield "The runs of a seed do not begin alike, as they should: their losses before the first update differ"


def _on_what_was_allowed(results: Results) -> Iterator[str]:
    first, *others = results.plan.candidates
    differing = {key for other in others for key, _, _ in first.config.differences(other.config)}
    for key in results.plan.allowed:
        if key in differing:
            yield f"The configurations are not equal in {key}, which was allowed"


# --- in tables


def standings_table(standings: Sequence[Standing]) -> Table:
    """A row a configuration."""
    milestones = [f"first epoch with {100 * each:g} %" for each in MILESTONES]
    differences = ["points from the first"] if len(standings) > 1 else []
    rows: Table = [("configuration", "seeds", "test accuracy", "test loss", *milestones, "seconds", *differences)]
    for each in standings:
        cells = (
            each.candidate.name,
            str(each.test_accuracy.n),
            f"{_shown(each.test_accuracy, 100, 2)} %",
            _shown(each.test_loss, 1, 4),
            *(_epochs_shown(each.first_epochs[milestone]) for milestone in MILESTONES),
            f"{each.seconds.mean:.1f}",
            _difference_shown(each.against_first),
        )
        rows.append(cells[: len(rows[0])])
    return rows


def about_the_table(standings: Sequence[Standing]) -> str:
    """What the numbers of `standings_table` are."""
    several = any(each.test_accuracy.n > 1 for each in standings)
    about = f"Test accuracy and loss: {'mean ± standard deviation' if several else 'of a single seed'}; "
    about += "epochs: median (lowest to highest); seconds: with what else the machine was doing"
    if len(standings) > 1:
        about += (
            "; points from the first: mean of the paired differences in test accuracy ± half of its "
            f"{100 * CONFIDENCE:g} % interval (Student's t), each by itself"
        )
    return about


def modes_table(pair: Sequence[Result]) -> Table:
    """The tutorial's epoch lines of one configuration and seed, side by side: loss and rate of each mode's first batches."""
    headings = [f"{each.run.mode} {what}" for each in pair for what in ("loss", "LR")]
    rows: Table = [("epoch", *headings)]
    for lines in zip(*(each.first_batches() for each in pair), strict=True):
        cells = [f"{number:f}" for _, loss, learning_rate in lines for number in (loss, learning_rate)]
        rows.append((str(lines[0][0]), *cells))
    return rows


def modes_tables(results: Results) -> dict[str, Table]:
    """For each configuration in several modes, with its first seed: title → `modes_table`."""
    tables = {}
    for candidate in results.plan.candidates:
        runs = [results.of(candidate, mode) for mode in results.plan.modes_of(candidate)]
        common = [seed for seed in runs[0] if all(seed in each for each in runs)]
        if len(runs) > 1 and common:
            tables[f"{candidate.name}, seed {common[0]}"] = modes_table([each[common[0]] for each in runs])
    return tables


def runs_table(results: Results) -> Table:
    """A row a run."""
    rows: Table = [("configuration", "mode", "seed", "test accuracy", "test loss", "seconds", "parameters SHA-256")]
    for each in results.results:
        which = each.run.candidate.name, each.run.mode, str(each.run.seed)
        if each.problem is not None:
            rows.append((*which, "not finished", "", "", ""))
            continue
        of = each.summary
        rows.append(
            (
                *which,
                f"{of['test_accuracy']:.2%}",
                f"{of['test_loss']:.6f}",
                f"{of['seconds']:.1f}",
                f"{of['parameters_sha256'][:16]}…",
            )
        )
    return rows


def markdown(results: Results, remarks: Sequence[str], command_line: str, conditions: str, figure: str) -> str:
    """The content of `comparison.md`. figure: the name of its file; "" if there is none."""
    lines = ["# Comparison", "", *(f"- {each}." for each in verdict(results, remarks)), ""]
    if results.standings:
        lines += [*in_markdown(standings_table(results.standings)), "", f"{about_the_table(results.standings)}.", ""]
    if figure:
        lines += [f"![Curves over the seeds]({figure})", ""]
    for title, table in modes_tables(results).items():
        lines += [f"## Scheduler modes: {title}", "", "The first batch of each epoch.", "", *in_markdown(table), ""]
    lines += ["## Runs", "", *in_markdown(runs_table(results)), "", "## How it was made", "", f"    {command_line}", ""]
    lines += [f"{conditions}. The folder of each run has its configuration and its environment.", ""]
    return "\n".join(lines)


def conditions(plan: Plan, environment: Mapping[str, Any], jobs: int) -> str:
    """On what is trained, in one line."""
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items() if name != "matplotlib")
    configs = [each.config for each in plan.candidates]
    threads = " or ".join(sorted({str(each.runtime.threads) for each in configs}))
    stages = " or ".join(sorted({each.model.stages for each in configs}))
    return (
        f"{environment['processor']}, {jobs} job{'' if jobs == 1 else 's'}, threads of a run: {threads}, "
        f"stages: {stages}, Python {environment['python']}, {packages}"
    )


def _shown(estimate: Estimate, times: float, digits: int) -> str:
    mean = f"{times * estimate.mean:.{digits}f}"
    return mean if estimate.standard_deviation is None else f"{mean} ± {times * estimate.standard_deviation:.{digits}f}"


def _epochs_shown(epochs: Sequence[int | None]) -> str:
    reached = sorted(each for each in epochs if each is not None)
    if not reached:
        return "never"
    shown = f"{statistics.median(reached):g}"
    if reached[0] != reached[-1]:
        shown += f" ({reached[0]} to {reached[-1]})"
    return shown if len(reached) == len(epochs) else f"{shown}, {len(reached)} of {len(epochs)}"


def _difference_shown(difference: PairedDifference | None) -> str:
    if difference is None:
        return ""
    shown = f"{100 * difference.mean:+.2f}"
    return shown if difference.half_width is None else f"{shown} ± {100 * difference.half_width:.2f}"


# --- as a record


def record(
    results: Results, remarks: Sequence[str], status: str, command_line: str, environment: Mapping[str, Any], jobs: int
) -> dict[str, Any]:
    """The content of `comparison.json`. status: "running", "finished", "failed" or "interrupted"."""
    return {
        "status": status,
        "command_line": command_line,
        "jobs": jobs,
        "environment": dict(environment),
        "seeds": list(results.plan.seeds),
        "allowed": list(results.plan.allowed),
        "verdict": verdict(results, remarks),
        "modes_identical": results.modes_identical,
        "mode_checks": [_mode_check_record(each) for each in results.mode_checks],
        "begins_alike": results.begins_alike,
        "configs": [_standing_record(each, results) for each in results.standings],
        "runs": [_run_record(each) for each in results.results],
    }


def _run_record(result: Result) -> dict[str, Any]:
    run = result.run
    return {
        "config": run.candidate.name,
        "mode": run.mode,
        "seed": run.seed,
        "folder": f"{result.folder.path.parent.name}/{result.folder.path.name}",
        "problem": result.problem,
        "summary": None if result.problem is not None else result.summary,
    }


def _mode_check_record(check: ModeCheck) -> dict[str, Any]:
    run = check.one.run
    return {
        "config": run.candidate.name,
        "seed": run.seed,
        "modes": [run.mode, check.other.run.mode],
        "identical": check.is_identical,
        "same_parameters": check.same_parameters,
        "first_different_learning_rate": check.learning_rate and check.learning_rate._asdict(),
        "first_different_loss": check.loss and check.loss._asdict(),
    }


def _standing_record(standing: Standing, results: Results) -> dict[str, Any]:
    difference = standing.against_first
    first = results.standings[0].candidate.name
    return {
        "config": standing.candidate.name,
        "file": standing.candidate.file,
        "schedule": standing.candidate.schedule,
        "modes": list(results.plan.modes_of(standing.candidate)),
        "test_accuracy": standing.test_accuracy._asdict(),
        "test_loss": standing.test_loss._asdict(),
        "seconds": standing.seconds._asdict(),
        "first_epoch": {f"{each:g}": epochs for each, epochs in standing.first_epochs.items()},
        "difference": difference and difference._asdict() | {"to": first, "words": words(standing, first)},
    }
