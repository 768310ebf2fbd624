"""Progress bars."""

from mnist_trainer.progress import count_with_bar


def test_numbers_are_counted_from_1_to_the_total() -> None:
    assert list(count_with_bar("counting", 3)) == [1, 2, 3]
    assert list(count_with_bar("counting", 0)) == []


def test_numbers_are_counted_one_at_a_time() -> None:
    assert next(count_with_bar("counting", 10**15)) == 1
