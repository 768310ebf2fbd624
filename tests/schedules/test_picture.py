"""The pictures of curves in notebooks: the points of the path, the text, and nothing that runs a user's code."""

import html
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from mnist_trainer.schedules import (
    CURVES,
    AnySchedule,
    Constant,
    Cosine,
    MultiFactor,
    OneCycleMomentum,
    Product,
    Schedule,
    UserSchedule,
    Warmup,
)

SVG = "{http://www.w3.org/2000/svg}"


def parsed(schedule: AnySchedule) -> ElementTree.Element:
    return ElementTree.fromstring(f"<body>{schedule._repr_html_()}</body>")


def steps_of(schedule: AnySchedule) -> Iterator[tuple[float, float]]:
    """Yield the horizontal end of each step of the path, and its height as a fraction of the axis."""
    axes, curve = (path.attrib["d"] for path in parsed(schedule).iter(f"{SVG}path"))
    frame = re.fullmatch(r"M0 0V(\d+)H(\d+)", axes)
    assert frame
    height, width = map(int, frame.groups())
    for y, x in re.findall(r"V([\d.]+)H([\d.]+)", curve):
        yield float(x) / width, 1 - float(y) / height


def test_each_iteration_is_a_step_with_the_height_of_its_rate() -> None:
    schedule = MultiFactor(step=[2, 5], factor=0.5, base_lr=8)
    drawn = list(steps_of(schedule))
    assert len(drawn) == 6  # the first iteration of the last level
    assert [x for x, _ in drawn] == pytest.approx([k / 6 for k in range(1, 7)], abs=0.001)
    assert [height for _, height in drawn] == pytest.approx([schedule(k) / 8 for k in range(1, 7)], abs=0.001)


def test_a_long_curve_is_drawn_in_part_from_its_first_iteration_to_its_last() -> None:
    schedule = Cosine(max_update=1_000_000, base_lr=0.1)
    drawn = list(steps_of(schedule))
    assert 700 < len(drawn) < 1000
    assert drawn[0][1] == pytest.approx(1, abs=0.001)
    assert drawn[-1] == pytest.approx((1, 0), abs=0.001)
    texts = [text.text for text in parsed(schedule).iter(f"{SVG}text")]
    assert texts == ["0.1", "0", "1", "Learning Rate over iterations", "1,000,000"]


@pytest.mark.parametrize("cls", CURVES)
def test_every_curve_has_a_picture_and_its_expression(cls: type[Schedule]) -> None:
    schedule = cls(**cls.example)
    (code,) = parsed(schedule).iter("code")
    assert code.text == repr(schedule)
    assert len(list(steps_of(schedule))) > 100


def test_a_rate_of_zero_can_be_drawn() -> None:
    assert {height for _, height in steps_of(Constant(0))} == {0.0}


def test_the_axis_has_the_quantity_of_the_curve() -> None:
    assert "Momentum over iterations" in OneCycleMomentum(max_update=10)._repr_html_()


def test_a_users_function_is_not_called_and_its_name_is_escaped() -> None:
    def own(iteration: int) -> float:
        raise AssertionError("called")

    schedule = Warmup(UserSchedule(own, "<script>&\x1b"), warmup_steps=10)
    assert schedule._repr_html_() == f"<code>{html.escape(repr(schedule)).replace(chr(27), chr(92) + 'x1b')}</code>"
    assert "<script>" not in schedule._repr_html_()


def test_a_curve_beyond_float32_is_shown_as_its_expression() -> None:
    schedule = Product([Constant(1e38)] * 2)
    assert schedule._repr_html_() == f"<code>{html.escape(repr(schedule))}</code>"
