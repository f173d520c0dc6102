"""Sums in prose come out; a wrong one is named with its file and line."""

import pytest
from checks import sums


def test_every_sum_of_the_course_comes_out(hold, covered):
    found, counted = sums.of_course()
    hold(found)
    for path, count in sorted(counted.items()):
        covered("sums", f"{path}: {count}")
    assert sum(counted.values()) >= 10


@pytest.mark.parametrize(
    "right",
    [
        "Reading 16 GB at that rate: 800 / 16 is 50 tokens per second.",
        "131,072 × 2,048 bytes = 268 MB.",
        "16 GB / 800 GB/s is 0.02 s, or 16 GB / 800 GB/s = 20 ms.",
        "16 GB / 268 MB is about 60 conversations.",
        "2 × 8 billion × 2,000 = 32 TFLOP.",
        "1 / (600 × 3600 × 0.25) × 1,000,000 = 1.85 dollars.",
        "32 times 8 times 128 times 2 bytes is 65,536 bytes.",
        "| 4 + 20 / 128 = 4.16 | bits |",
        "$2 \\times 32 \\times 8 = 512$ and $\\frac{800}{16} = 50$.",
        "Pages 5–10 are 2 of 8; a range of 5-10 is no sum, nor is 2026-11-23.",
    ],
)
def test_a_right_sum_passes(page, right):
    assert sums.problems([page(f"# Title\n\n{right}\n")]) == []


@pytest.mark.parametrize(
    ("false", "reason"),
    [
        ("So 800 / 16 is 60 tokens per second.", "it comes to 50"),
        ("16 GB / 800 GB/s is 0.02 ms.", "it comes to 0.02"),
        ("16 GB / 800 GB/s is 20 GB.", "has another unit"),
        ("131,072 × 2,048 bytes = 286 MB.", "it comes to 2.68"),
        ("| 4 + 20 / 128 = 4.61 | bits |", "it comes to 4.15625"),
        ("$2 \\times 32 \\times 8 = 521$", "it comes to 512"),
        ("16 GB / 268 MB is about 70 conversations.", "it comes to 59.7"),
        ("16 GB + 3 s = 19 GB.", "cannot be reckoned"),
    ],
)
def test_a_wrong_sum_is_named_with_its_line(page, false, reason):
    [problem] = sums.problems([page(f"# Title\n\nA line.\n\n{false}\n")])
    assert problem.line == 5 and reason in problem.reason


def test_an_excused_sum_is_left_alone(page):
    assert sums.problems([page("# Title\n\n% figure: wrong on purpose\nSome say that 2 + 2 is 5.\n")]) == []
