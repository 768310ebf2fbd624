"""The README and `docs/`: sizes, links, generated tables, figures, and numbers that pages share."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from documents import PAGES, README, anchors_of, links_of, outside_code, section, sections_of
from matplotlib.image import imread
from programs import REPOSITORY, load_script

from mnist_trainer.comparison.intervals import Estimate
from mnist_trainer.errors import DONE
from mnist_trainer.schedules import CURVES

DOCS = REPOSITORY / "docs"
FIGURES = DOCS / "figures"
MARKDOWN = [*PAGES, REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md", REPOSITORY / "data/mnist/README.md"]


MAKE_DOCS = load_script("make_docs")


def measured(name: str) -> Any:
    return json.loads((DOCS / name).read_text(encoding="utf-8"))


def test_the_readme_takes_two_screens() -> None:
    assert len(README.read_bytes()) <= 10_000


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.name)
def test_lines_are_wrapped(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = (text if path in PAGES else outside_code(text)).splitlines()
    may_be_long = r"\||.*https?://|.*\]\(\S+\)[.,:]?$"  # rows of tables, and links that cannot be broken
    assert [line for line in lines if len(line) > 100 and not re.match(may_be_long, line)] == []


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for link in links_of(path):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("path", [page for page in PAGES if page != README], ids=lambda path: path.name)
def test_a_page_begins_with_what_one_can_do_and_has_examples(path: Path) -> None:
    begin = path.read_text(encoding="utf-8").split("\n", 3)
    assert begin[0].startswith("# ")
    assert begin[2].startswith("After reading this page you ")
    assert any(found.examples for found in sections_of(path))


def test_the_readme_links_to_every_page() -> None:
    linked = {link.partition("#")[0] for link in links_of(README)}
    assert {f"docs/{page.name}" for page in PAGES if page != README} <= linked


def test_every_figure_is_shown_and_has_a_maker() -> None:
    shown = {Path(link).name for page in PAGES for link in links_of(page) if link.endswith(".png")}
    of_notebook = {path.name for path in FIGURES.glob("tutorial_*.png")}
    assert shown == {path.name for path in FIGURES.iterdir()} == set(MAKE_DOCS.FIGURES) | of_notebook
    for name in shown:
        assert imread(FIGURES / name).shape[0] > 100, name


def test_the_gallery_shows_every_schedule() -> None:
    columns, rows = 4, -(-len(CURVES) // 4)
    width, height = imread(FIGURES / "schedules.png").shape[1::-1]
    assert width / height == pytest.approx(2.7 * columns / (2.5 * rows), rel=0.01)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_tables_are_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert MAKE_DOCS.with_tables(text) == text, "run python scripts/make_docs.py tables"


def test_every_table_is_on_a_page() -> None:
    used = [name for page in PAGES for name in re.findall(r"<!-- table: (.+) -->", page.read_text(encoding="utf-8"))]
    assert sorted(used) == sorted(MAKE_DOCS.TABLES)


def test_the_speed_in_the_readme_is_the_measured_one() -> None:
    ratios = {name: result["ratio"]["median"] for name, result in measured("benchmark.json")["results"].items()}
    claim = re.search(r"(\d+\.\d) times as fast as the tutorial's loop, and (\d+\.\d)\s+times as fast as\s+PyTorch", readme())
    assert claim
    assert claim[1] == f"{ratios['tutorial']:.1f}"
    assert claim[2] == f"{min(ratios['torch'], ratios['torch-channels-last']):.1f}"


def test_the_comparison_in_the_readme_is_the_measured_one() -> None:
    rows = [line for line in readme().splitlines() if re.match(r"(tutorial|cosine) +3 ", line)]
    scores = measured("two.json")["configs"]
    for row, score in zip(rows, scores, strict=True):
        assert f" {Estimate(**score['test_accuracy']).shown(100, 2)} % " in row
    assert f"\n{scores[1]['difference']['words']}.\n" in readme()


def test_the_conditions_of_the_benchmark_are_the_measured_ones() -> None:
    text = re.sub(r"\s+", " ", section("docs/benchmarks.md", "Speed").text)
    environment = measured("benchmark.json")["environment"]
    packages = environment["peer_packages"] | {"MXNet": "1.9.1", "Python": environment["python"]}
    named = {"torch": "PyTorch", "jax": "JAX"}
    for package, version in packages.items():
        assert f"{named.get(package, package)} {version}" in text
    assert environment["processor"].partition(" (")[0] in text
    assert environment["started"][:10] in text


def test_the_accuracy_in_the_readme_is_that_of_the_configuration() -> None:
    stated = re.search(r"# Measured: (\d\d\.\d\d) %", (REPOSITORY / "configs/tutorial.toml").read_text(encoding="utf-8"))
    assert stated
    assert f"Test accuracy {stated[1]}%" in readme()


def test_the_number_of_schedules_in_the_readme_is_right() -> None:
    assert f"[{len(CURVES)} schedules]" in readme()


def test_the_size_of_the_golden_tables_is_right() -> None:
    tables = [json.loads(path.read_text(encoding="utf-8")) for path in (REPOSITORY / "tests/schedules/golden").glob("*.json")]
    cases = [case for table in tables for case in table["cases"]]
    rates = sum(len(case["values"]) for case in cases)
    text = re.sub(r"\s+", " ", section("docs/schedules.md", "How they are verified").text)
    assert f"{len(tables)} tables, {len(cases)} cases with {rates:,} rates" in text


@pytest.mark.process
def test_a_figure_is_made_by_its_documented_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MAKE_DOCS, "DOCS", tmp_path)
    (tmp_path / "figures").mkdir()
    assert MAKE_DOCS.main(["mine.png"]) == DONE
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["mine.png"]
    assert imread(tmp_path / "figures/mine.png").shape == imread(FIGURES / "mine.png").shape


def test_a_measurement_is_recorded_without_what_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MAKE_DOCS, "DOCS", tmp_path)
    (tmp_path / "results").mkdir()
    environment = {"processor": "a processor", "data_dir": "/home/somebody/data", "environment_variables": {"OMP_": "1"}}
    (tmp_path / "results/costs.json").write_text(json.dumps({"environment": environment, "costs": {}}), encoding="utf-8")
    MAKE_DOCS.record(tmp_path / "results/costs.json", "costs.json")
    recorded = json.loads((tmp_path / "costs.json").read_text(encoding="utf-8"))
    assert recorded == {"environment": {"processor": "a processor"}, "costs": {}}


def test_nothing_of_this_machine_is_in_the_measurements() -> None:
    for path in DOCS.glob("*.json"):
        assert not re.search(r"/(home|root|tmp|work)/", path.read_text(encoding="utf-8")), path


def readme() -> str:
    return README.read_text(encoding="utf-8")
