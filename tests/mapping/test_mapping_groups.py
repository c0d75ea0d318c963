"""Groups of zeros: what one crossbar holds of one output."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvaudit.device import load_profile
from nvaudit.mapping.conductance import layout
from nvaudit.mapping.groups import group_numbers, saved, unmapped, zero_groups
from nvaudit.mapping.tiling import Crossbar, Lines, row_starts, tiling_of
from nvaudit.model.roles import CrossbarMatrix

TERNARY = layout(load_profile("rram"), bits=1, cell_bits=1, encoding="sign_magnitude")
EIGHT_BITS = layout(load_profile("rram"), bits=8, cell_bits=2, encoding="sign_magnitude")


def test_zero_groups_by_hand():
    """A group is marked if all of it is zero; one other number in it is enough to keep it."""
    matrix = np.array([[0, 0, 5], [0, 1, 0], [0, 0, 0], [2, 0, 0], [0, 0, 0]])
    found = zero_groups(matrix, rows=[0, 2, 4], cols=[0, 1, 2])
    wanted = [[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 1, 1], [1, 1, 1]]
    assert found.astype(int).tolist() == wanted
    wide = zero_groups(matrix, rows=[0, 2, 4], cols=[0, 2])
    assert wide.astype(int).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1], [1, 1, 1]]


@given(
    st.integers(0, 7), st.integers(0, 6), st.lists(st.integers(1, 3), min_size=1), st.integers(0, 2**32 - 1)
)
def test_zero_groups_are_what_a_loop_finds(rows, cols, sizes, seed):
    """On any matrix, cut anywhere, a weight is marked exactly if its group has no other number than 0."""
    matrix = np.random.Generator(np.random.SFC64(seed)).integers(0, 4, (rows, cols)) // 3
    cuts = [cut for cut in np.cumsum([0, *sizes]).tolist() if cut < rows] or [0]
    found = zero_groups(matrix, cuts, range(cols))
    assert found.shape == matrix.shape
    for start, stop in zip(cuts, [*cuts[1:], rows], strict=True):
        for col in range(cols):
            assert (found[start:stop, col] == (not matrix[start:stop, col].any())).all()


def test_groups_of_the_paper():
    """A 3 × 3 kernel on crossbars of 72 rows: groups of eight input channels of one output (S, 6.2.1)."""
    lines = Lines((0,), 144, 4, 9)
    number = group_numbers((4, 16, 3, 3), lines, 72)
    assert np.unique(number).tolist() == list(range(8))
    assert (np.bincount(number.ravel()) == 72).all()
    assert all(
        len(np.unique(number[out, part])) == 1 for out in range(4) for part in (slice(8), slice(8, 16))
    )
    assert len({number[out, channel, 0, 0] for out in range(4) for channel in (0, 8)}) == 8


def test_a_crossbar_holds_whole_channels():
    """256 rows hold 28 channels of 9 positions at most; a product of matrices has no kernel to keep whole."""
    assert [start % 9 for start in row_starts(576, Lines((0,), 576, 4, 9), 256)] == [0, 0, 0]
    assert row_starts(512, Lines((1,), 512, 4), 256) == [0, 256]


@pytest.mark.parametrize(
    ("shape", "lines"),
    [
        ((8, 6, 3, 3), Lines((0,), 54, 8, 9)),  # Conv
        ((8, 3, 3, 3), Lines((0,), 27, 4, 9)),  # Conv, two groups
        ((6, 4, 3, 3), Lines((1,), 27, 4, 9)),  # ConvTranspose, two groups
        ((40, 7), Lines((1,), 40, 7)),  # MatMul
        ((7, 40), Lines((0,), 40, 7)),  # Gemm, transposed
        ((2, 12, 20), Lines((0, 1), 20, 12)),  # LSTM, both directions
        ((40,), Lines((), 40, 1)),
        ((), Lines((), 1, 1)),
    ],
)
def test_each_group_is_of_one_output_and_fits_a_crossbar(shape, lines):
    """Whatever the operator: no group has more weights than a crossbar has rows, or two outputs."""
    number = group_numbers(shape, lines, 16)
    assert number.shape == shape
    counts = np.bincount(number.ravel())
    assert (counts > 0).all()
    assert counts.max() <= 16
    for one in range(len(counts)):
        places = np.argwhere(number == one)[:, list(lines.axes)]
        assert len(np.unique(places, axis=0)) == 1
    # The weights of a group, and no others, are marked once they alone are zero.
    code = np.ones(shape, np.int16)
    code[number == len(counts) - 1] = 0
    assert (unmapped(code, lines, 16) == (code == 0)).all()
    assert unmapped(np.ones(shape, np.int16), lines, 16) is None


def test_saved_crossbars_by_hand():
    """The columns that are left move up: 3 of 10 outputs in the second block make it one crossbar instead of
    three."""
    code = np.ones((512, 10), np.int16)
    code[256:, 3:] = 0
    found = saved(code, Lines((1,), 512, 10), TERNARY, Crossbar(256, 4))
    assert (found.groups, found.zero_groups) == (20, 7)
    assert (found.weights, found.zero_weights) == (5120, 7 * 256)
    assert (found.crossbars, found.kept) == (6, 4)
    sliced = saved(code, Lines((1,), 512, 10), EIGHT_BITS, Crossbar(256, 4))
    assert (sliced.crossbars, sliced.kept) == (20, 13)


def test_matrices_are_counted_apart():
    """The groups of a convolution lie on crossbars of their own, and so do the directions of an LSTM."""
    for shape, lines, matrices in (
        ((8, 4, 3, 3), Lines((0,), 36, 4, 9), 2),
        ((2, 12, 20), Lines((0, 1), 20, 12), 2),
        ((6, 4, 3, 3), Lines((1,), 27, 4, 9), 2),
    ):
        code = np.ones(shape, np.int16)
        size = Crossbar(36, 5)
        found = saved(code, lines, TERNARY, size)
        matrix = CrossbarMatrix(matrices, lines.rows, lines.cols, lines.kernel)
        assert found.crossbars == found.kept == tiling_of(matrix, TERNARY, size).crossbars
    code[3:] = 0  # the second matrix of the last one
    found = saved(code, lines, TERNARY, size)
    assert (found.crossbars, found.kept) == (2, 1)


def test_nothing_is_no_group():
    """A weight without numbers has no groups and fills no crossbar."""
    empty = np.zeros((0, 4), np.int16)
    assert unmapped(empty, Lines((1,), 0, 4), 16) is None
    assert saved(empty, Lines((1,), 0, 4), TERNARY, Crossbar()).groups == 0
    assert group_numbers((0, 4), Lines((1,), 0, 4), 16).shape == (0, 4)
