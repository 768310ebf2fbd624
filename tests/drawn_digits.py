"""Reproducible pictures of digits for tests of `inference`: digits in matplotlib's fonts, and enlarged MNIST test images.

python tests/drawn_digits.py FOLDER            writes the digits in fonts into a new folder
python tests/drawn_digits.py FOLDER RUN_DIR    also prints how many of both kinds the run's model recognises
"""

import io
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

FONTS = tuple(
    Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    for name in (
        "DejaVuSans",
        "DejaVuSans-Bold",
        "DejaVuSans-Oblique",
        "DejaVuSansMono",
        "DejaVuSansMono-Bold",
        "DejaVuSerif",
        "DejaVuSerif-Bold",
        "DejaVuSerif-Italic",
        "STIXGeneral",
        "STIXGeneralBol",
        "STIXGeneralItalic",
        "cmb10",
        "cmr10",
        "cmss10",
        "cmtt10",
    )
)

Colour = tuple[int, int, int]
Picture = Image.Image


class Style(NamedTuple):
    """A style of drawing: height of the font and size of the picture in pixels, colours, and the file name extension."""

    name: str
    size: int
    side: tuple[int, int]
    ink: Colour
    paper: Colour
    ending: str


STYLES = (
    Style("black-on-white", 200, (280, 280), (0, 0, 0), (255, 255, 255), "png"),
    Style("white-on-black", 60, (90, 70), (255, 255, 255), (0, 0, 0), "pgm"),
    Style("blue-on-yellow", 150, (400, 250), (20, 40, 160), (250, 230, 120), "jpg"),
    Style("red-on-green", 40, (60, 160), (214, 40, 40), (40, 125, 40), "png"),  # colours of nearly the same brightness
    Style("pale-on-grey", 500, (640, 900), (205, 210, 215), (150, 150, 145), "bmp"),
)


class Drawn(NamedTuple):
    """A drawn digit."""

    name: str  # of the file
    digit: int
    font: str
    style: str
    content: bytes  # of the file


def drawn_digits(fonts: Iterable[Path] = FONTS, styles: Sequence[Style] = STYLES) -> Iterator[Drawn]:
    """Yield each digit in each font and style, at a random place in the picture."""
    chance = random.Random(0)
    for font in fonts:
        for style in styles:
            for digit in range(10):
                stem = f"{font.stem}_{style.name}_{digit}"
                yield Drawn(f"{stem}.{style.ending}", digit, font.stem, style.name, _draw(font, style, digit, chance))


def _draw(font: Path, style: Style, digit: int, chance: random.Random) -> bytes:
    letters = ImageFont.truetype(font, style.size)
    left, top, right, bottom = letters.getbbox(str(digit))
    spare = [side - extent for side, extent in zip(style.side, (right - left, bottom - top), strict=True)]
    margin = 3
    x, y = (chance.randint(margin, room - margin) if room > 2 * margin else room // 2 for room in map(int, spare))
    picture = Image.new("RGB", style.side, style.paper)
    ImageDraw.Draw(picture).text((x - left, y - top), str(digit), fill=style.ink, font=letters)
    if style.ending == "pgm":
        picture = picture.convert("L")
    stream = io.BytesIO()
    picture.save(stream, {"jpg": "jpeg", "pgm": "ppm"}.get(style.ending, style.ending))
    return stream.getvalue()


def seven(ink: Any = 0, paper: Any = 255, mode: str = "L", size: tuple[int, int] = (200, 160)) -> Picture:
    """Draw a thick 7 that is not in the middle of the picture."""
    picture = Image.new(mode, size, paper)
    pen = ImageDraw.Draw(picture)
    pen.line([(60, 30), (120, 30), (85, 120)], fill=ink, width=14)
    return picture


def saved(picture: Picture, kind: str = "png", **arguments: Any) -> io.BytesIO:
    """Return a file with this picture."""
    stream = io.BytesIO()
    picture.save(stream, kind, **arguments)
    stream.seek(0)
    return stream


def enlarged(image: npt.NDArray[np.uint8]) -> bytes:
    """Return an MNIST image, shape (28, 28), as a PNG file: enlarged to 280×280 pixels, dark on white."""
    stream = io.BytesIO()
    Image.fromarray(255 - image).resize((280, 280), Image.Resampling.BICUBIC).save(stream, "png")
    return stream.getvalue()


def main(arguments: Sequence[str]) -> None:
    folder, *runs = map(Path, arguments)
    folder.mkdir()
    drawn = list(drawn_digits())
    for drawing in drawn:
        (folder / drawing.name).write_bytes(drawing.content)
    print(f"{len(drawn)} drawn digits in {folder}")
    for run in runs:
        measure(run, drawn)


def measure(run: Path, drawn: Iterable[Drawn]) -> None:
    """Print the fraction of digits that a run's model recognises, by style and font, and for enlarged MNIST test images."""
    from mnist_trainer.config.loading import load_recorded_config
    from mnist_trainer.data.mnist_files import find_data_dir, read_split
    from mnist_trainer.inference.predictor import open_model
    from mnist_trainer.run_folder import CONFIG, RunFolder

    model = open_model(RunFolder.open(run), load_recorded_config(run / CONFIG))
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()

    def predict(digit: int, content: bytes, *groups: str) -> None:
        is_right = model.predict_picture(io.BytesIO(content)).digit == digit
        right.update(dict.fromkeys(groups, is_right))
        total.update(groups)

    for drawing in drawn:
        predict(drawing.digit, drawing.content, "drawn digits", drawing.style, drawing.font)
    test = read_split(find_data_dir(), train=False)
    for image, label in zip(test.images, test.labels.tolist(), strict=True):
        predict(label, enlarged(image), "MNIST's test images, enlarged")
    for group, number in total.items():
        print(f"{group:32}{right[group] / number:8.2%}  ({right[group]} of {number})")


if __name__ == "__main__":
    main(sys.argv[1:])
