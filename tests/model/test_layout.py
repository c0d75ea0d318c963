"""Chains of moves between the layouts of a weight: applied, undone, simplified, checked with ONNX Runtime."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_cases import make_model, session, value

from nvaudit.model.layout import UNMOVED, Layout, matrix_layout


@st.composite
def chains(draw, kinds=("transpose", "reshape")):
    """A shape, and moves that fit it one after the other."""
    start = shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple))
    moves = []
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(kinds))
        if kind == "transpose":
            argument = draw(st.permutations(range(len(shape))).map(tuple))
        elif kind == "reshape":
            argument = draw(st.sampled_from(regroupings(math.prod(shape))))
        else:
            axis = draw(st.integers(0, len(shape) - 1))
            first = draw(st.integers(0, shape[axis] - 1))
            argument = (axis, first, draw(st.integers(first + 1, shape[axis])))
        moves.append((kind, argument))
        shape = Layout(moves).shape(start)
    return start, Layout(moves)


def regroupings(size):
    """Some shapes of so many elements."""
    pairs = [(n, size // n) for n in range(1, size + 1) if size % n == 0]
    return [(size,), *pairs, *((n, 1, m) for n, m in pairs)]


def filled(shape):
    return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)


@given(chains())
def test_the_inverse_undoes_a_chain(case):
    """Moves and their inverse, in either order, are nothing; the inverse of the inverse is the same map."""
    start, layout = case
    values = filled(start)
    moved = layout.apply(values)
    assert moved.shape == layout.shape(start)
    back = layout.inverse(start)
    assert np.array_equal(back.apply(moved), values)
    assert layout.then(back).simplified(start).apply(values).shape == start
    assert np.array_equal(back.inverse(moved.shape).apply(values), moved)


@given(chains(("transpose", "reshape", "slice", "keep")))
def test_a_simplified_chain_is_the_same_map_and_no_longer(case):
    """Whatever is merged or left out; a second time changes nothing."""
    start, layout = case
    short = layout.simplified(start)
    assert len(short) <= len(layout)
    assert np.array_equal(short.apply(filled(start)), layout.apply(filled(start)))
    assert short.simplified(start) == short


@given(chains(("transpose", "reshape", "slice", "keep")), st.integers(1, 3))
def test_stacked_arrays_move_as_each_does(case, count):
    """With devices as a first axis every device is laid out as one array is."""
    start, layout = case
    stack = filled((count, *start))
    moved = layout.with_devices(count).apply(stack)
    assert np.array_equal(moved, np.stack([layout.apply(one) for one in stack]))


@settings(max_examples=30, deadline=None)
@given(chains())
def test_onnx_runtime_moves_the_same(case):
    """Transpose and Reshape nodes with these arguments give what the moves give."""
    start, layout = case
    nodes, stored, at = [], {}, "x"
    for number, (kind, argument) in enumerate(layout):
        name = f"v{number}"
        if kind == "transpose":
            nodes.append(helper.make_node("Transpose", [at], [name], perm=argument))
        else:
            stored[f"s{number}"] = np.array(argument, np.int64)
            nodes.append(helper.make_node("Reshape", [at, f"s{number}"], [name]))
        at = name
    nodes.append(helper.make_node("Identity", [at], ["y"]))
    model = make_model(nodes, [value("x", list(start))], [value("y", None)], stored)
    (found,) = session(model.SerializeToString()).run(None, {"x": filled(start)})
    assert np.array_equal(found, layout.apply(filled(start)))


def test_the_callers_array_is_not_written_to():
    """A move that puts zeros somewhere works on a copy."""
    values = filled((4, 3))
    values.flags.writeable = False
    kept = Layout([("keep", (0, 1, 3))]).apply(values)
    assert np.array_equal(kept, [[0, 0, 0], [3, 4, 5], [6, 7, 8], [0, 0, 0]])


def test_a_part_has_no_inverse():
    """What a move drops cannot be brought back."""
    with pytest.raises(ValueError, match="'slice' loses elements"):
        Layout([("slice", (0, 0, 1))]).inverse((2, 2))


def test_a_layout_travels_to_workers_as_it_is():
    """It is equal after pickling, usable as a key, and a plain tuple of moves beside."""
    layout = Layout([("transpose", (1, 0))])
    copy = pickle.loads(pickle.dumps(layout))
    assert type(copy) is Layout
    assert {copy: 1}[layout] == 1
    assert layout == (("transpose", (1, 0)),)
    assert UNMOVED.then(layout, layout).simplified((2, 3)) == UNMOVED


@given(st.lists(st.integers(0, 3), min_size=0, max_size=4).map(tuple), st.data())
def test_a_matrix_has_the_chosen_axes_as_columns(shape, data):
    """Rows and columns count the other axes and the chosen ones, the last one fastest, in the given order."""
    axes = data.draw(
        st.permutations(range(len(shape))).flatmap(
            lambda p: st.sampled_from([p[:n] for n in range(len(p) + 1)])
        )
    )
    layout = matrix_layout(shape, axes)
    rows, cols = layout.shape(shape)
    matrix = layout.apply(filled(shape))
    assert (rows, cols) == matrix.shape
    assert cols == math.prod(shape[axis] for axis in axes)
    if matrix.size:
        for place in np.ndindex(*shape):
            col = np.ravel_multi_index([place[a] for a in axes], [shape[a] for a in axes]) if axes else 0
            rest = [a for a in range(len(shape)) if a not in axes]
            row = np.ravel_multi_index([place[a] for a in rest], [shape[a] for a in rest]) if rest else 0
            assert matrix[row, col] == filled(shape)[place]
