"""Opens pages in a real Chromium, on screens of any size and in either colour scheme.

Needs the system packages chromium and chromium-driver.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from programs import LIMIT_SECONDS
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.support.wait import WebDriverWait

MIN_CONTRAST = 4.5
"""Minimum contrast of text, from the Web Content Accessibility Guidelines, level AA."""

_LOW_CONTRASTS = """
const [minimum] = arguments;
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function over(color, [red, green, blue]) {
  canvas.fillStyle = `rgb(${red} ${green} ${blue})`;
  canvas.fillRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data;
}
function paperOf(element) {
  const below = element.parentElement ? paperOf(element.parentElement) : [255, 255, 255];
  return over(getComputedStyle(element).backgroundColor, below);
}
function luminance(color) {
  const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const [red, green, blue] = Array.from(color, (part) => linear(part / 255));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
const found = [];
let checked = 0;
for (const element of document.body.querySelectorAll("*")) {
  const texts = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
  const text = texts.map((node) => node.data).join("").trim();
  const style = getComputedStyle(element);
  if (!text || style.visibility !== "visible" || !element.getClientRects().length) continue;
  const paper = paperOf(element);
  const ink = over(element instanceof SVGElement ? style.fill : style.color, paper);
  const [low, high] = [luminance(ink), luminance(paper)].sort((one, other) => one - other);
  const contrast = (high + 0.05) / (low + 0.05);
  checked += 1;
  if (contrast < minimum) found.push(`${text}: ${contrast.toFixed(2)}`);
}
return [checked, found];
"""


@contextmanager
def browser() -> Iterator[Chrome]:
    """Run a headless Chromium with an empty profile that makes no requests in the background."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium, "Chromium is missing; apt-get install chromium"
    assert chromedriver, "chromedriver is missing; apt-get install chromium-driver"
    options = ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="chromium.", ignore_cleanup_errors=True) as profile:
        for flag in (
            "headless=new",
            "no-sandbox",  # root cannot use the sandbox
            "disable-gpu",
            "disable-dev-shm-usage",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            f"user-data-dir={profile}",
        ):
            options.add_argument(f"--{flag}")
        driver = Chrome(options, ChromeService(chromedriver))
        try:
            yield driver
        finally:
            driver.quit()


def look(driver: Chrome, width: int, height: int = 800, scheme: str = "light", scale: float = 2) -> None:
    """Show pages on a screen of this size and in this colour scheme; if it is small, on a phone."""
    is_phone = min(width, height) < 500
    screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": is_phone})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})


def low_contrasts(driver: Chrome) -> list[str]:
    """Return the texts of the page whose contrast is below `MIN_CONTRAST`, each with its contrast."""
    checked, found = driver.execute_script(_LOW_CONTRASTS, MIN_CONTRAST)
    assert checked
    return list(found)


def until(driver: Chrome, condition: Callable[[], bool], complaint: str) -> None:
    WebDriverWait(driver, LIMIT_SECONDS, poll_frequency=0.02).until(lambda _: condition(), complaint)
