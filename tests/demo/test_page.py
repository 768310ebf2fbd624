"""The demo's page in a real browser, used with a mouse, a finger and the keyboard."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import browser, look, low_contrasts, until
from demo_browser import DIGITS, answer_text, demo_of, draw, wait_for_answer
from PIL import Image
from requirements import needs_browser
from selenium.webdriver import Chrome
from selenium.webdriver.common.actions.interaction import POINTER_TOUCH
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from mnist_trainer.inference.preprocessing import mnist_image

NOTHING = "The answer appears here"
"""The answer to an empty pad."""

pytestmark = [needs_browser, pytest.mark.browser, pytest.mark.process, pytest.mark.slow]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chrome]:
    with browser() as driver:
        yield driver


@pytest.fixture(scope="module")
def address(trained_run: Path) -> Iterator[str]:
    with demo_of(trained_run) as served:
        yield served


@pytest.fixture
def page(chromium: Chrome, address: str) -> Iterator[Chrome]:
    """Load the page anew, on a desktop screen and in light colours."""
    look(chromium, 1000)
    chromium.get(address)
    yield chromium
    errors = [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []  # violations of the page's policy would be among them


def percents(driver: Chrome) -> list[float]:
    texts = driver.execute_script("return [...document.querySelectorAll('.percent')].map(each => each.textContent)")
    return [float(text.removesuffix(" %")) for text in texts if text]


def pixels_of(driver: Chrome, canvas: str) -> Any:
    """Return the grey levels of a canvas, shape (rows, columns)."""
    script = (
        "const canvas = document.getElementById(arguments[0]);"
        "const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
        "return [canvas.width, Array.from(pixels).filter((_, place) => place % 4 === 0)]"
    )
    width, levels = driver.execute_script(script, canvas)
    return np.array(levels, np.uint8).reshape(-1, width)


@pytest.mark.parametrize("digit", DIGITS)
def test_a_drawn_digit_is_recognised(digit: int, page: Chrome) -> None:
    assert answer_text(page).startswith(NOTHING)
    draw(page, DIGITS[digit])
    wait_for_answer(page, f"{digit}\n")
    shares = percents(page)
    assert len(shares) == 10
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert np.argmax(shares) == digit
    best = page.find_element(By.CSS_SELECTOR, "#bars .best")
    assert best.text.split()[0] == str(digit)
    track, fill = (best.find_element(By.CLASS_NAME, name) for name in ("track", "fill"))
    grown = pytest.approx(max(shares) / 100, abs=0.02)
    until(page, lambda: fill.size["width"] / track.size["width"] == grown, "the bar does not grow")


def test_the_input_of_the_network_is_shown(page: Chrome) -> None:
    draw(page, DIGITS[7])
    wait_for_answer(page, "7\n")
    shown = pixels_of(page, "seen").astype(float)
    assert shown.shape == (28, 28)
    expected = mnist_image(Image.fromarray(pixels_of(page, "pad"))).astype(float)
    # The page sends the drawing in another size, so the rounding of the centre may move it by one pixel.
    shifts = [np.roll(shown, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    assert min(np.abs(shift - expected).mean() for shift in shifts) < 4
    rows, columns = np.indices(shown.shape)
    centre = [(shown * coordinate).sum() / shown.sum() for coordinate in (rows, columns)]
    assert centre == pytest.approx([14, 14], abs=0.6)


def test_the_answer_changes_while_drawing(page: Chrome) -> None:
    upper, lower = DIGITS[4]
    draw(page, [upper])
    wait_for_answer(page, *"0123456789")
    before = percents(page)
    assert len(before) == 10
    draw(page, [lower])
    wait_for_answer(page, "4\n")
    assert percents(page) != before


def test_undo_and_clear_remove_strokes(page: Chrome) -> None:
    undo, clear = (page.find_element(By.ID, name) for name in ("undo", "clear"))
    assert not undo.is_enabled()
    draw(page, DIGITS[1])
    wait_for_answer(page, "1\n")
    draw(page, [[(0.2, 0.5), (0.8, 0.5)]])
    undo.click()
    wait_for_answer(page, "1\n")
    clear.click()
    wait_for_answer(page, NOTHING)
    assert percents(page) == []
    assert not pixels_of(page, "seen").any()
    assert not clear.is_enabled()


def test_a_dot_is_answered(page: Chrome) -> None:
    page.find_element(By.ID, "pad").click()
    wait_for_answer(page, *"0123456789")


def test_the_keyboard_can_draw(page: Chrome) -> None:
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    pad = page.switch_to.active_element
    assert pad.get_attribute("id") == "pad"
    pad.send_keys(*9 * [Keys.ARROW_UP], Keys.SPACE, *18 * [Keys.ARROW_DOWN], Keys.SPACE)
    wait_for_answer(page, "1\n")
    pad.send_keys(*5 * [Keys.ARROW_RIGHT], Keys.SPACE, *9 * [Keys.ARROW_UP])
    pad.send_keys(Keys.BACKSPACE)
    wait_for_answer(page, "1\n")
    pad.send_keys(Keys.ESCAPE)
    wait_for_answer(page, NOTHING)


@pytest.mark.parametrize(("width", "height"), [(390, 844), (320, 568), (844, 390)])
def test_a_finger_can_draw_on_a_phone_and_see_the_answer_without_scrolling(
    width: int, height: int, chromium: Chrome, address: str
) -> None:
    look(chromium, width, height)
    chromium.get(address)
    draw(chromium, DIGITS[7], POINTER_TOUCH)
    wait_for_answer(chromium, "7\n")
    assert chromium.execute_script("return [document.documentElement.scrollWidth, scrollY]") == [width, 0]
    lowest = chromium.execute_script("return document.getElementById('bars').getBoundingClientRect().bottom")
    assert lowest <= height
    assert chromium.find_element(By.ID, "pad").size["width"] >= 200
    heights = [chromium.find_element(By.ID, name).size["height"] for name in ("undo", "clear")]
    assert min(heights) >= 44  # large enough for a finger


def test_the_page_names_the_run_and_says_what_to_do(page: Chrome, trained_run: Path) -> None:
    accuracy = json.loads((trained_run / "summary.json").read_text(encoding="utf-8"))["test_accuracy"]
    model = page.find_element(By.ID, "model").text
    assert str(trained_run) in model
    assert f"{accuracy:.2%}" in model
    hint, seen = (page.find_element(By.ID, name) for name in ("hint", "seen"))
    assert "Draw a digit" in hint.text
    assert not seen.is_displayed()
    draw(page, DIGITS[1])
    wait_for_answer(page, "1\n")
    assert not hint.is_displayed()
    assert seen.is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(scheme: str, page: Chrome) -> None:
    look(page, 1000, scheme=scheme)
    assert low_contrasts(page) == []
    draw(page, DIGITS[1])
    wait_for_answer(page, "1\n")
    assert low_contrasts(page) == []


def test_a_screen_reader_hears_the_pen_and_the_answer_after_a_stroke(page: Chrome) -> None:
    spoken = page.find_element(By.ID, "spoken")
    assert spoken.aria_role == "status"

    def heard() -> str:
        return str(spoken.get_property("textContent"))

    pad = page.find_element(By.ID, "pad")
    pad.send_keys(*9 * [Keys.ARROW_UP], Keys.SPACE)
    assert heard() == "Pen down, column 14, row 5 of 28"
    pad.send_keys(*18 * [Keys.ARROW_DOWN])
    wait_for_answer(page, "1\n")
    assert heard() == "Pen down, column 14, row 23 of 28", "an answer to each point would drown the pen"
    pad.send_keys(Keys.SPACE)
    until(page, lambda: heard().startswith("1 "), "the answer is not heard")
    pad.send_keys(Keys.ESCAPE)
    until(page, lambda: heard().startswith(NOTHING), "the empty pad is not heard")


def test_the_page_follows_the_dark_colour_scheme(page: Chrome) -> None:
    draw(page, DIGITS[0])
    wait_for_answer(page, "0\n")
    light, shares = pixels_of(page, "pad"), percents(page)
    assert (light[0, 0], light.min()) == (255, 29)
    look(page, 1000, scheme="dark")
    until(page, lambda: pixels_of(page, "pad")[0, 0] == 34, "the pad stays light")
    assert pixels_of(page, "pad").max() == 244
    assert percents(page) == shares
    text, paper = page.execute_script("const body = getComputedStyle(document.body); return [body.color, body.backgroundColor]")
    assert (text, paper) == ("rgb(236, 236, 238)", "rgb(22, 22, 24)")


def test_a_server_that_does_not_answer_is_reported(chromium: Chrome, trained_run: Path) -> None:
    look(chromium, 1000)
    with demo_of(trained_run) as address:
        chromium.get(address)
    draw(chromium, DIGITS[1])
    wait_for_answer(chromium, "The program does not answer")
    chromium.get_log("browser")  # removes the error of this request from the log
