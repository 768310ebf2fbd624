"""The results of a comparison as one HTML page that needs no network and runs no script.

`page.html` is its template; `report` makes its sentences and tables.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from mnist_trainer.comparison import report
from mnist_trainer.comparison.results import Result, Results
from mnist_trainer.console import Table, printable
from mnist_trainer.folder import MAX_JSON_BYTES
from mnist_trainer.run_folder import CONFIG, ENVIRONMENT

_TEMPLATE = Path(__file__).with_name("page.html")

_FIGURE = "Test error, test loss and learning rate over the epochs, and the test accuracy of each seed at the end"


def html(results: Results, remarks: Sequence[str], command_line: str, conditions: str, svg: str) -> str:
    """Return the content of `comparison.html`.

    Args:
        results: The results of the comparison.
        remarks: Further sentences: reasons why the results are less certain.
        command_line: The command that made the comparison.
        conditions: The machine and the versions, in one line.
        svg: The figure, which may have several parts; "" if there is none.
    """
    sentences = "".join(f"<li>{_escape(sentence)}.</li>\n" for sentence in report.verdict(results, remarks))
    scores = ""
    if results.scores:
        about = _escape(report.about_the_table(results.scores))
        scores = f"{_table('Scores', report.scores_table(results.scores))}\n<p>{about}.</p>"
    modes = "".join(
        f"<h2>Scheduler modes: {_escape(name)}</h2>\n<p>The first batch of each epoch.</p>\n"
        f"{_table(f'Scheduler modes: {name}', table)}\n"
        for name, table in report.modes_tables(results).items()
    )
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=_escape(", ".join(candidate.name for candidate in results.plan.candidates)),
        sentences=sentences,
        scores=scores,
        figure=f'<div class="panels" role="img" aria-label="{_FIGURE}">{svg}</div>' if svg else "",
        modes=modes,
        settings=_settings(results),
        runs=_table("Runs", report.runs_table(results)),
        details="".join(map(_details, results.finished)),
        command_line=_escape(command_line),
        conditions=_escape(conditions),
    )


def _settings(results: Results) -> str:
    table = report.settings_table(results)
    return f"<h2>Settings that differ</h2>\n{_table('Settings that differ', table)}" if len(table) > 1 else ""


def _table(name: str, table: Table) -> str:
    headings, *rows = table
    head = "".join(f'<th scope="col">{_escape(cell)}</th>' for cell in headings)
    body = "".join(
        f'<tr><th scope="row">{_escape(first)}</th>{"".join(f"<td>{_escape(cell)}</td>" for cell in rest)}</tr>\n'
        for first, *rest in rows
    )
    region = f'<div class="wide" role="region" aria-label="{_escape(name)}" tabindex="0">'  # it scrolls with the arrow keys
    return f"{region}<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"


def _details(result: Result) -> str:
    files = "".join(
        f"<h3>{name}</h3><pre>{_escape(result.folder.read(name, MAX_JSON_BYTES).decode(errors='replace'))}</pre>"
        for name in (CONFIG, ENVIRONMENT)
    )
    return f"<details><summary>{_escape(str(result.run))}</summary>{files}</details>\n"


def _escape(text: str) -> str:
    return escape(printable(text))
