"""The results of a comparison as sentences, as tables, and as the content of `comparison.json`. Standard library only."""

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_trainer.comparison.intervals import CONFIDENCE
from mnist_trainer.comparison.plan import Plan
from mnist_trainer.comparison.results import MILESTONES, Difference, Result, Results, RunCheck, Score
from mnist_trainer.console import Table, as_code_block, as_markdown, counted, in_markdown, shown

RECORD = "comparison.json"
TEXT = "comparison.md"
FIGURE = "comparison.png"
PAGE = "comparison.html"

FILES = (RECORD, TEXT, FIGURE, PAGE)


# --- sentences


def verdict(results: Results, remarks: Sequence[str] = ()) -> list[str]:
    """Return the findings as sentences, the most important first.

    Args:
        results: The results of the comparison.
        remarks: Further sentences: reasons why the results are less certain.
    """
    return [
        *_on_failures(results),
        *_on_modes(results),
        *_on_missed_drops(results),
        *remarks,
        *(sentence(score, results.scores[0].candidate.name) for score in results.scores if score.against_first),
        *_on_first_losses(results),
        *_on_allowed_differences(results),
        *_on_networks(results),
    ]


def sentence(score: Score, first: str) -> str:
    """Return a sentence that compares the test accuracy of a configuration with that of the first."""
    difference = score.against_first
    assert difference
    name, points = score.candidate.name, 100 * difference.mean
    if difference.half_width is None:
        relation = f"{abs(points):.2f} points {'above' if points > 0 else 'below'}" if points else "equal to"
        return f"The test accuracy of {name} is {relation} that of {first}; a single seed gives no interval"
    interval = f"± {100 * difference.half_width:.2f} points (n = {difference.n})"
    if difference.excludes_zero:
        return f"{name} is {'better' if points > 0 else 'worse'} than {first} by {abs(points):.2f} {interval}"
    return f"No difference seen between {name} and {first}: {points:+.2f} {interval}"


def _on_failures(results: Results) -> Iterator[str]:
    for result in results.failed:
        yield f"{result.run} is not finished: {result.problem}"


def _on_modes(results: Results) -> Iterator[str]:
    checks, pairs = results.mode_checks, results.mode_pairs
    wrong = [check for check in checks if not check.is_identical]
    for check in wrong:
        run = check.one.run
        yield f"{run.candidate.name}, seed {run.seed}: the scheduler modes differ: {_how_modes_differ(check)}"
    if checks and not wrong:
        rates = f"all {sum(len(check.one.iterations) for check in checks):,} learning rates are the same"
        number = f"each of {pairs}" if len(checks) == pairs else f"{len(checks)} of {pairs}"
        where = f"in {number} pairs of runs " if pairs > 1 else ""
        yield f"The scheduler modes agree: {where}{rates}, and so are the parameters, to the last bit"
        unchanged = [check for check in checks if len({rate for _, rate, _ in check.one.iterations}) == 1]
        if len(unchanged) == len(checks):
            iterations = len(checks[0].one.iterations)
            yield (
                f"The learning rate never changes within these {iterations:,} iterations, so this comparison does not show "
                "that both modes change it alike; train longer"
            )


def _how_modes_differ(check: RunCheck) -> str:
    modes = check.one.run.mode, check.other.run.mode
    parts = [
        f"{name} first at iteration {difference.iteration}, {_side_by_side(difference, modes)}"
        for name, difference in (("learning rates", check.learning_rate), ("losses", check.loss))
        if difference
    ]
    if not check.same_parameters:
        parts.append("the trained parameters differ" if parts else "only the parameters after the last update differ")
    return "; ".join(parts)


def _side_by_side(difference: Difference, modes: tuple[str, str]) -> str:
    _, one, other = difference
    return f"{one!r} in {modes[0]} and {other!r} in {modes[1]} (by {abs(one - other):.3g})"


def _on_first_losses(results: Results) -> Iterator[str]:
    if results.begins_alike:
        yield "Runs with the same seed start out identical: their losses before the first update are the same to the last bit"
    elif results.begins_alike is not None:
        yield "Runs with the same seed should start out identical, but their losses before the first update differ"


def _on_missed_drops(results: Results) -> Iterator[str]:
    for candidate in results.plan.candidates if results.finished else ():
        if candidate.missed_drop is not None:
            yield (
                f"The learning rate of {candidate.name} never drops: its first drop is after iteration "
                f"{candidate.missed_drop:,}, and its runs have {candidate.config.run_length.total_iterations:,} iterations"
            )


def _on_allowed_differences(results: Results) -> Iterator[str]:
    first, *others = results.plan.candidates
    differing = {key for other in others for key, _, _ in first.config.differences(other.config)}
    for key in results.plan.allowed:
        if key in differing:
            yield f"The configurations differ in {key}, which --allow permits"


def _on_networks(results: Results) -> Iterator[str]:
    networks = {candidate.config.model.network or "" for candidate in results.plan.candidates}
    if all(networks):
        yield f"All runs train {' or '.join(sorted(networks))}, not the tutorial's network"


# --- tables


def scores_table(scores: Sequence[Score]) -> Table:
    """Return a row for each configuration."""
    reached = [accuracy for accuracy in MILESTONES if any(any(score.first_epochs[accuracy]) for score in scores)]
    milestones = [f"first epoch with {100 * accuracy:g} %" for accuracy in reached]
    differences = ["points from the first"] if len(scores) > 1 else []
    rows: Table = [("configuration", "seeds", "test accuracy", "test loss", *milestones, "seconds", *differences)]
    for score in scores:
        cells = (
            score.candidate.name,
            str(score.test_accuracy.n),
            f"{score.test_accuracy.shown(100, 2)} %",
            score.test_loss.shown(1, 4),
            *(_epochs_shown(score.first_epochs[accuracy]) for accuracy in reached),
            f"{score.seconds.mean:.1f}",
            score.against_first.shown() if score.against_first else "",
        )
        rows.append(cells[: len(rows[0])])
    return rows


def settings_table(results: Results) -> Table:
    """Return a row for each setting that differs, with a column for each candidate."""
    candidates = results.plan.candidates
    first = candidates[0].config
    keys = {key: None for other in candidates for key, _, _ in first.differences(other.config) if key != "training.seed"}
    rows: Table = [("setting", *(candidate.name for candidate in candidates))]
    for key in keys:
        section, _, name = key.partition(".")
        values = [candidate.config.to_tables()[section].get(name) for candidate in candidates]
        rows.append((key, *("" if value is None else shown(value, 60) for value in values)))
    runs = [[result.run for result in results.results if result.run.candidate is candidate] for candidate in candidates]
    seeds = [", ".join(str(run.seed) for run in of_candidate) for of_candidate in runs]
    if len(set(seeds)) > 1:
        rows.append(("training.seed", *seeds))
    return rows


def about_the_table(scores: Sequence[Score]) -> str:
    """Return an explanation of the numbers of `scores_table`."""
    several = any(score.test_accuracy.n > 1 for score in scores)
    about = f"Test accuracy and loss: {'mean ± standard deviation' if several else 'of a single seed'}; "
    if any("first epoch" in heading for heading in scores_table(scores)[0]):
        about += "epochs: median (lowest to highest); "
    about += "seconds: mean time of a run, longer on a busy machine"
    if len(scores) > 1:
        about += (
            "; points from the first: mean of the paired differences in test accuracy ± half the width of its "
            f"{100 * CONFIDENCE:g} % interval (Student's t, not corrected for multiple comparisons)"
        )
    return about


def modes_table(pair: Sequence[Result]) -> Table:
    """Return loss and learning rate of the first batch of each epoch, as the tutorial prints them, for each mode of a seed."""
    headings = [f"{result.run.mode} {quantity}" for result in pair for quantity in ("loss", "LR")]
    rows: Table = [("epoch", *headings)]
    for lines in zip(*(result.first_batches() for result in pair), strict=False):  # a run that differs may stop earlier
        cells = [f"{number:f}" for _, loss, learning_rate in lines for number in (loss, learning_rate)]
        rows.append((str(lines[0][0]), *cells))
    return rows


def modes_tables(results: Results) -> dict[str, Table]:
    """Return a `modes_table`, by title, for the first common seed of each configuration that has several modes."""
    tables = {}
    for candidate in results.plan.candidates:
        modes = [results.of(candidate, mode) for mode in results.plan.modes_of(candidate)]
        common_seeds = [seed for seed in modes[0] if all(seed in by_seed for by_seed in modes)]
        if len(modes) > 1 and common_seeds:
            seed = common_seeds[0]
            tables[f"{candidate.name}, seed {seed}"] = modes_table([by_seed[seed] for by_seed in modes])
    return tables


def runs_table(results: Results) -> Table:
    """Return a row for each run."""
    rows: Table = [("configuration", "mode", "seed", "test accuracy", "test loss", "seconds", "parameters SHA-256", "folder")]
    for result in results.results:
        numbers = ["not finished", "", "", ""]
        if result.problem is None:
            summary = result.summary
            numbers = [f"{summary['test_accuracy']:.2%}", f"{summary['test_loss']:.6f}", f"{summary['seconds']:.1f}"]
            numbers.append(f"{summary['parameters_sha256'][:16]}…")
        rows.append((result.run.candidate.name, result.run.mode, str(result.run.seed), *numbers, result.folder.path.name))
    return rows


def markdown(results: Results, remarks: Sequence[str], command_line: str, conditions: str, figure: str) -> str:
    """Return the content of `comparison.md`.

    Args:
        results: The results of the comparison.
        remarks: Further sentences: reasons why the results are less certain.
        command_line: The command that made the comparison.
        conditions: The machine and the versions, in one line.
        figure: The name of the figure's file; "" if there is none.
    """
    lines = ["# Comparison", "", *(f"- {as_markdown(finding)}." for finding in verdict(results, remarks)), ""]
    if results.scores:
        lines += [*_in_markdown(scores_table(results.scores)), "", f"{as_markdown(about_the_table(results.scores))}.", ""]
    if len(settings := settings_table(results)) > 1:
        lines += ["## Settings that differ", "", *_in_markdown(settings), ""]
    if figure:
        lines += [f"![Curves over the seeds]({figure})", ""]
    for title, table in modes_tables(results).items():
        heading = f"## Scheduler modes: {as_markdown(title)}"
        lines += [heading, "", "The first batch of each epoch.", "", *_in_markdown(table), ""]
    lines += ["## Runs", "", *_in_markdown(runs_table(results)), ""]
    lines += ["## Command and conditions", "", *as_code_block(command_line), ""]
    lines += [f"{as_markdown(conditions)}. The folder of each run contains its configuration and its environment.", ""]
    return "\n".join(lines)


def _in_markdown(table: Table) -> list[str]:
    return in_markdown([tuple(map(as_markdown, row)) for row in table])


def conditions(plan: Plan, environment: Mapping[str, Any], jobs: int) -> str:
    """Return the machine, the number of jobs and the versions in one line."""
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items() if name != "matplotlib")
    configs = [candidate.config for candidate in plan.candidates]
    threads = " or ".join(sorted({str(config.runtime.threads) for config in configs}))
    backend = " or ".join(sorted({config.model.backend for config in configs}))
    return (
        f"{environment['processor']}, {counted(jobs, 'job')}, threads of a run: {threads}, "
        f"backend: {backend}, Python {environment['python']}, {packages}"
    )


def _epochs_shown(epochs: Sequence[int | None]) -> str:
    reached = sorted(epoch for epoch in epochs if epoch is not None)
    if not reached:
        return "never"
    shown = f"{statistics.median(reached):g}"
    if reached[0] != reached[-1]:
        shown += f" ({reached[0]} to {reached[-1]})"
    return shown if len(reached) == len(epochs) else f"{shown}, {len(reached)} of {len(epochs)}"


# --- the record


def record(
    results: Results,
    remarks: Sequence[str],
    status: str,
    command_line: str,
    environment: Mapping[str, Any] | None = None,
    jobs: int = 0,
    *,
    folder: Path,
) -> dict[str, Any]:
    """Return the content of `comparison.json`.

    Args:
        results: The results of the comparison.
        remarks: Further sentences: reasons why the results are less certain.
        status: "running", "finished", "failed" or "interrupted".
        command_line: The command that made the comparison.
        environment: The environment of the process that trains the runs; None if the runs were finished before.
        jobs: The number of trainings side by side; 0 if the runs were finished before.
        folder: The folder of the comparison, to which the paths of the runs are relative.
    """
    return {
        "status": status,
        "command_line": command_line,
        "jobs": jobs,
        "environment": environment and dict(environment),
        "seeds": list(results.plan.seeds),
        "allowed": list(results.plan.allowed),
        "verdict": verdict(results, remarks),
        "modes_identical": results.modes_identical,
        "mode_checks": [_mode_check_record(check) for check in results.mode_checks],
        "begins_alike": results.begins_alike,
        "configs": [_score_record(score, results) for score in results.scores],
        "settings": _settings_record(results),
        "runs": [_run_record(result, folder) for result in results.results],
    }


def _settings_record(results: Results) -> dict[str, dict[str, str]]:
    (_, *names), *rows = settings_table(results)
    return {key: dict(zip(names, values, strict=True)) for key, *values in rows}


def _run_record(result: Result, folder: Path) -> dict[str, Any]:
    run = result.run
    return {
        "config": run.candidate.name,
        "mode": run.mode,
        "seed": run.seed,
        "folder": os.path.relpath(result.folder.path.resolve(), folder.resolve()),
        "problem": result.problem,
        "summary": None if result.problem is not None else result.summary,
    }


def _mode_check_record(check: RunCheck) -> dict[str, Any]:
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


def _score_record(score: Score, results: Results) -> dict[str, Any]:
    difference = score.against_first
    first = results.scores[0].candidate.name
    return {
        "config": score.candidate.name,
        "file": score.candidate.file,
        "schedule": score.candidate.schedule,
        "modes": list(results.plan.modes_of(score.candidate)),
        "test_accuracy": score.test_accuracy._asdict(),
        "test_loss": score.test_loss._asdict(),
        "seconds": score.seconds._asdict(),
        "first_epoch": {f"{accuracy:g}": epochs for accuracy, epochs in score.first_epochs.items()},
        "difference": difference and difference._asdict() | {"to": first, "words": sentence(score, first)},
    }
