"""The data sets that this program knows by name: their classes and numbers of images. Standard library only.

`data.files` finds and reads the files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

DIGITS = tuple("0123456789")

IMAGE_SIZE = (28, 28)
"""Height and width of the images of all known data sets."""


@dataclass(frozen=True)
class DataSet:
    """A data set in four files like MNIST's.

    Attributes:
        classes: The names of the classes, in the order of the labels.
        train_images: The number of training images.
        test_images: The number of test images.
        is_transposed: True if the rows of an image in the file are the columns of the picture.
    """

    classes: tuple[str, ...] = DIGITS
    train_images: int = 60_000
    test_images: int = 10_000
    is_transposed: bool = False


def kind_of_class(classes: Sequence[str]) -> str:
    """Return the word for one of these classes: "digit", or "class" for any others."""
    return "digit" if tuple(classes) == DIGITS else "class"


DATA_SETS = {
    "mnist": DataSet(),
    "fashion-mnist": DataSet(
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    ),
    "kmnist": DataSet(("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")),
    "emnist-digits": DataSet(train_images=240_000, test_images=40_000, is_transposed=True),
}
"""Name → data set. The names of classes are those of torchvision."""
