"""Drives the demo's page in a real Chromium with a mouse, a finger or a keyboard.

    python tests/demo_browser.py RUN_DIR FILE.png    draws a digit and takes the screenshot for the README

Needs the system packages chromium and chromium-driver.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from browsers import browser, look, until
from programs import ForkedProgram, wait_for
from selenium.webdriver import Chrome
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.interaction import POINTER_MOUSE
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By

Stroke = Sequence[tuple[float, float]]
"""Points (x, y) from the left and the top, as fractions of the pad's side."""

DIGITS: dict[int, Sequence[Stroke]] = {
    0: [[(0.5, 0.2), (0.36, 0.28), (0.3, 0.5), (0.36, 0.72), (0.5, 0.8), (0.64, 0.72), (0.7, 0.5), (0.64, 0.28), (0.5, 0.2)]],
    1: [[(0.5, 0.2), (0.5, 0.8)]],
    4: [[(0.35, 0.2), (0.33, 0.5), (0.68, 0.5)], [(0.65, 0.2), (0.63, 0.82)]],
    7: [[(0.3, 0.22), (0.7, 0.22), (0.62, 0.42), (0.5, 0.8)]],
}


@contextmanager
def started_demo(run_dir: Path) -> Iterator[tuple[ForkedProgram, str]]:
    """Run `mnist-trainer demo` in a fork of this process; provide the process and the address."""
    process = ForkedProgram("demo", run_dir, "--port", "0", cwd=Path.cwd())
    try:
        wait_for(lambda: process.printed().endswith("\n"), process)
        assert process.poll() is None, process.communicate()
        (address,) = re.findall(r"http://\S+", process.printed())
        yield process, address
    finally:
        process.kill()


@contextmanager
def demo_of(run_dir: Path) -> Iterator[str]:
    """Run `mnist-trainer demo`; provide its address."""
    with started_demo(run_dir) as (_, address):
        yield address


def draw(driver: Chrome, strokes: Sequence[Stroke], kind: str = POINTER_MOUSE) -> None:
    """Draw strokes with the mouse or, with `POINTER_TOUCH`, a finger."""
    pad = driver.find_element(By.ID, "pad")
    side = pad.size["width"]
    for stroke in strokes:
        actions = ActionBuilder(driver, mouse=PointerInput(kind, kind), duration=10)
        places = [(round((x - 0.5) * side), round((y - 0.5) * side)) for x, y in stroke]
        actions.pointer_action.move_to(pad, *places[0]).pointer_down()
        for place in places[1:]:
            actions.pointer_action.move_to(pad, *place)
        actions.pointer_action.pointer_up()
        actions.perform()


def answer_text(driver: Chrome) -> str:
    """Return the page's answer to the drawing."""
    return driver.find_element(By.ID, "prediction").text


def wait_for_answer(driver: Chrome, *begins: str) -> None:
    """Wait until the answer to the complete drawing begins with one of these texts."""
    answer = driver.find_element(By.ID, "answer")
    until(
        driver,
        lambda: answer.get_attribute("aria-busy") == "false" and answer_text(driver).startswith(begins),
        f"the answer does not begin with {begins}",
    )


def take_screenshot(run_dir: Path, path: Path) -> None:
    with demo_of(run_dir) as address, browser() as driver:
        look(driver, 760, 570, scale=1)
        driver.get(address)
        draw(driver, [[(0.46, 0.25), (0.36, 0.42), (0.42, 0.5), (0.6, 0.48)], [(0.6, 0.24), (0.58, 0.8)]])  # an incomplete 9
        wait_for_answer(driver, "4", "9")
        driver.execute_async_script("setTimeout(arguments[0], 500)")  # while the bars grow
        driver.save_screenshot(str(path))


if __name__ == "__main__":
    take_screenshot(Path(sys.argv[1]), Path(sys.argv[2]))
