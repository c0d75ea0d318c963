"""The outputs of audits that the documentation shows are what the example gives."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ONE_SAMPLE = 100 / 597
"""Percent: processors round differently, which moves a chip by a sample."""

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_PICTURE = re.compile("[▁-█─▲]")


def shown(page: str, first: str) -> list[str]:
    """The lines of the block that holds a line, from there to the next ellipsis; pictures are left out."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (block,) = [body for body in re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S) if first in body]
    lines = block[block.index(first) :].split("…")[0].splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not _PICTURE.search(line)]


def agree(line: str, printed: str) -> bool:
    """Whether two lines have the same words, whole numbers, and percentages to within two samples."""
    if _NUMBER.sub("#", line) != _NUMBER.sub("#", printed):
        return False
    pairs = zip(_NUMBER.findall(line), _NUMBER.findall(printed), strict=True)
    return all(a == b or ("." in a and abs(float(a) - float(b)) <= 2 * ONE_SAMPLE) for a, b in pairs)


def missing(lines: list[str], output: str) -> list[str]:
    """The lines that the output does not have, in this order."""
    printed = iter([" ".join(line.split()) for line in output.splitlines()])
    return [line for line in lines if not any(agree(line, other) for other in printed)]


@pytest.fixture(scope="module")
def printed(example):
    """What an audit of the example prints; called with options, which are run once."""
    found: dict[tuple[object, ...], str] = {}

    def run(command: Callable[..., Any], options: tuple[object, ...]) -> str:
        if options not in found:
            ran = command("audit", example, "--device", "fefet1", *options, "--quiet")
            assert ran.code == 0, ran.err
            found[options] = ran.out
        return found[options]

    return run


@pytest.mark.parametrize(
    ("page", "first", "options"),
    [
        ("README.md", "KPP 1 % top1 ", ()),
        ("docs/quickstart.md", "KPP 1 % top1 ", ()),
        ("docs/method.md", "  KPP 1 %  ", ("--trials", 200)),
    ],
    ids=lambda value: value if str(value).endswith(".md") else "",
)
def test_the_output_shown_is_the_output(page, first, options, command, printed):
    """Every line that is shown is printed, in this order, with these numbers."""
    lines = shown(page, first)
    assert len(lines) >= 2
    assert missing(lines, printed(command, options)) == []


def test_other_outputs_are_seen():
    """The check finds another word, another count, another percentage, another order."""
    output = "KPP 1 % top1 95.64 %, 1000 chips\nideal 98.16 %\n"
    right = ["KPP 1 % top1 95.48 %, 1000 chips", "ideal 98.16 %"]
    assert missing(right, output) == []
    assert missing(right[::-1], output) != []
    for wrong in ("KPP 5 % top1 95.64 %, 1000 chips", "KPP 1 % top1 94.64 %, 1000 chips",
                  "KPP 1 % top5 95.64 %, 1000 chips", "KPP 1 % top1 95.64 %, 100 chips"):  # fmt: skip
        assert missing([wrong], output) == [wrong]
