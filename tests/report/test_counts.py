"""How counts are said: no share above all of it, no plural of one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvaudit.report.wording import count_text, images_text


@given(st.integers(0, 10**9), st.integers(1, 10**8))
def test_no_share_of_images_above_all(done, exhaustive):
    """What was run is said as a share where it is one, and else by how much it is more."""
    text = images_text(done, exhaustive)
    shares = [float(share) for share in re.findall(r"\(([0-9.e+-]+) %\)", text)]
    assert all(share <= 100 for share in shares)
    assert (" more than " in text) == (done > exhaustive)


@pytest.mark.parametrize("noun", ["chip", "image", "sample"])
def test_one_is_no_plural(noun):
    """One chip, two chips, no chips."""
    assert [count_text(number, noun) for number in (0, 1, 2)] == [f"0 {noun}s", f"1 {noun}", f"2 {noun}s"]
