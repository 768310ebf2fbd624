"""Compares finished runs as they are: `compare RUN_DIR RUN_DIR …`. Trains nothing, and runs none of their code.

Runs that differ in their seed alone are the seeds of one candidate. `results` and `report` then treat them like the runs of a
comparison that this program has trained.
"""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from mnist_trainer.comparison import report, session
from mnist_trainer.comparison.plan import Candidate, Plan, PlannedRun
from mnist_trainer.comparison.results import Result, Results, RunCheck
from mnist_trainer.config.loading import load_recorded_config
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.console import shown
from mnist_trainer.errors import RequestError, collected
from mnist_trainer.run_folder import CONFIG, RunFolder
from mnist_trainer.schedules import SettingsError

_SEED = "training.seed"


def read_runs(paths: Sequence[Path]) -> Results:
    """Read finished runs to compare them.

    Args:
        paths: Their folders, at least two.

    Returns:
        The results, with a candidate for each set of settings, named after its first run. A second run with the same settings
        and the same seed is a candidate of its own.

    Raises:
        RequestError: With a message for each folder that is not a finished run, is damaged or is given twice.
    """
    problems: list[str] = []
    if len(paths) < 2:
        problems.append(f"{paths[0]}: is a single run; name at least two run folders")
    runs: list[tuple[RunFolder, RunConfig]] = []
    for path in paths:
        with collected(problems):
            runs.append(_read_run(path))
    real = [folder.path.resolve() for folder, _ in runs]
    problems += [f"{path}: is given twice; give each run once" for number, path in enumerate(real) if path in real[:number]]
    for folder, config in runs[1:]:
        if config.data.identity != runs[0][1].data.identity:
            trained = [f"{shown(of_run.data.name)}" for of_run in (config, runs[0][1])]
            problems.append(
                f"{folder.path}: was trained on other data ({trained[0]}) than {runs[0][0].path} ({trained[1]}), with which it "
                "cannot be compared; name runs with the same name, classes, image_size and sha256 in [data]"
            )
    if problems:
        raise RequestError(*problems)
    candidates: list[Candidate] = []
    results: list[Result] = []
    for folder, config in runs:
        candidate = _candidate_of(config, candidates, results) or _new_candidate(folder, config, candidates)
        if candidate not in candidates:
            candidates.append(candidate)
        results.append(Result(PlannedRun(candidate, config.training.scheduler_mode, config.training.seed), folder))
    seeds = sorted({result.run.seed for result in results})
    return Results(Plan(candidates, None, seeds), results)


def _read_run(path: Path) -> tuple[RunFolder, RunConfig]:
    folder = RunFolder.open(path)
    if not folder.is_finished:
        command = shlex.join(["mnist-trainer", "train", "--resume", str(path)])
        raise RequestError(f"{path}: the run is not finished; resume it with {command}")
    config = load_recorded_config(folder / CONFIG)
    Result(PlannedRun(Candidate(path.name, str(path), config, "", None), "", 0), folder).check(config)
    return folder, config


def _candidate_of(config: RunConfig, candidates: Sequence[Candidate], results: Sequence[Result]) -> Candidate | None:
    """Return the candidate with the same settings that has no run with this seed yet."""
    for candidate in candidates:
        seeds = {result.run.seed for result in results if result.run.candidate is candidate}
        differing = {key for key, _, _ in candidate.config.differences(config)}
        if differing <= {_SEED} and config.training.seed not in seeds:
            return candidate
    return None


def _new_candidate(folder: RunFolder, config: RunConfig, others: Sequence[Candidate]) -> Candidate:
    path = folder.path
    name = path.resolve().name
    if any(name == other.name for other in others):
        name = str(path)
    if config.users_code():  # a stranger's code is not run
        return Candidate(name, str(path), config, shown(config.schedule.get("name")), None)
    try:
        schedule = config.build_schedule()
    except SettingsError as error:
        raise RequestError(f"{path / CONFIG}: {error}") from error
    return Candidate(name, str(path), config, str(schedule), schedule.missed_drop(config.run_length.total_iterations))


# --- findings


def agreements(results: Results) -> Iterator[str]:
    """Yield a sentence on each run that has the seed of a run of the first candidate: where the two first differ."""
    first, *others = results.plan.candidates
    of_first = results.of(first, first.modes[0])
    for candidate in others:
        of_candidate = results.of(candidate, candidate.modes[0])
        if of_first.keys().isdisjoint(of_candidate):
            yield f"{first.name} and {candidate.name} have no seed in common, so they are not compared run by run"
        for seed, result in of_candidate.items():
            if seed in of_first:
                yield f"{first.name} and {candidate.name}, seed {seed}: {_how_they_agree(RunCheck.of(of_first[seed], result))}"


def _how_they_agree(check: RunCheck) -> str:
    iterations = min(len(check.one.iterations), len(check.other.iterations))
    names = ("learning rates", check.learning_rate), ("losses", check.loss)
    same = [name for name, difference in names if difference is None]
    parts = [f"the {' and '.join(same)} of {iterations:,} iterations are the same"] if same else []
    parts += [
        f"the {name} first differ at iteration {difference.iteration:,}, {difference.one!r} and {difference.other!r}"
        for name, difference in names
        if difference
    ]
    if len(check.one.iterations) != len(check.other.iterations):
        parts.append(f"the runs have {len(check.one.iterations):,} and {len(check.other.iterations):,} iterations")
    parts.append(f"the trained parameters {'are the same to the last bit' if check.same_parameters else 'differ'}")
    return "; ".join(parts)


def findings(results: Results) -> list[str]:
    """Return the sentences on agreement, early stops and installations."""
    return [*agreements(results), *session.remarks(results)]


def write(results: Results, folder: RunFolder, command_line: Sequence[str]) -> None:
    """Write the files of the comparison into a new folder. The folders of the runs are not changed.

    Args:
        results: The results, from `read_runs`.
        folder: The folder to write to.
        command_line: The command, to be recorded.
    """
    command, found = shlex.join(command_line), findings(results)
    folder.write_json(report.RECORD, report.record(results, found, "finished", command, folder=folder.path))
    conditions = "The runs were finished before; this command trained none"
    session.write_for_readers(folder, results, found, command, conditions, f"to draw it later: {command}")
