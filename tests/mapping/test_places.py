"""Where each device lies on its crossbar, and back."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvaudit.device import load_profile
from nvaudit.mapping import manifest
from nvaudit.mapping.codes import least_noisy_code
from nvaudit.mapping.conductance import code_layout, held_levels, layout
from nvaudit.mapping.places import Geometry, target_arrays
from nvaudit.mapping.tiling import Crossbar, Lines, tiling_of
from nvaudit.model.roles import CrossbarMatrix

SHAPES = [
    ((8, 4, 3, 3), Lines((0,), rows=36, cols=8, kernel=9), CrossbarMatrix(1, 36, 8, 9)),
    ((6, 2, 3, 3), Lines((0,), rows=18, cols=3, kernel=9), CrossbarMatrix(2, 18, 3, 9)),  # two groups
    (
        (4, 3, 2, 2),
        Lines((1,), rows=8, cols=3, kernel=4),
        CrossbarMatrix(2, 8, 3, 4),
    ),  # transposed, two groups
    ((10, 7), Lines((1,), rows=10, cols=7), CrossbarMatrix(1, 10, 7)),
    ((7, 10), Lines((0,), rows=10, cols=7), CrossbarMatrix(1, 10, 7)),
    ((2, 12, 5), Lines((0, 1), rows=5, cols=12), CrossbarMatrix(2, 5, 12)),  # directions of an LSTM
    ((9,), Lines((), rows=9, cols=1), CrossbarMatrix(1, 9, 1)),
]


@pytest.mark.parametrize(("shape", "lines", "matrix"), SHAPES)
@pytest.mark.parametrize("encoding", ["sign_magnitude", "differential", "offset", "sign_per_device"])
@settings(max_examples=10)
@given(rows=st.integers(4, 40), cols=st.integers(1, 40))
def test_every_device_lies_on_one_crossbar_and_comes_back(shape, lines, matrix, encoding, rows, cols):
    """Whatever the size of a crossbar: as many as are counted, each device once, and levels add up."""
    profile = load_profile("rram")
    if encoding == "sign_per_device":
        array = code_layout(profile, least_noisy_code([4, 2, 1], np.ones(4), encoding))
    else:
        array = layout(profile, bits=6, encoding=encoding)
    size = Crossbar(rows, cols)
    code = np.random.RandomState(0).randint(-array.top, array.top + 1, shape).astype(np.int16)
    geometry = Geometry.of(shape, lines, array, size)
    codes = geometry.to_matrix.apply(code)
    places = list(geometry.places())
    assert len(places) == tiling_of(matrix, array, size).crossbars

    seen = np.zeros((geometry.devices, *codes.shape), int)
    value = np.zeros((geometry.devices, *codes.shape))
    for place in places:
        target = target_arrays(codes, place, array, size)
        assert target.used.sum() == (place.rows[1] - place.rows[0]) * len(place.outputs)
        assert not target.level[~target.used].any()
        place.put(np.where(target.used, target.sign * target.level.astype(float), np.nan), value)
        seen[place.devices[None], np.arange(*place.rows)[:, None], place.outputs[None]] += 1
        np.testing.assert_allclose(
            target.conductance[target.used], array.g_min + target.level[target.used] * array.step, rtol=1e-6
        )
    assert (seen == 1).all()
    factors = np.abs(np.array(array.code.factors))
    held = np.tensordot(factors, value, 1) - array.code.zero
    exact = array.code.reachable[codes + array.top]
    np.testing.assert_array_equal(held[exact], codes[exact])
    assert exact.any()


def test_groups_of_zeros_leave_no_device_and_the_rest_moves_up():
    """Left-out groups take no column; what stays is as it would be alone."""
    array, size = layout(load_profile("rram"), bits=4), Crossbar(4, 6)
    code = np.arange(1, 33, dtype=np.int16).reshape(8, 4) % 15 + 1
    code[:4, 1] = 0
    code[4:, 3] = 0
    lines = Lines((1,), rows=8, cols=4)
    geometry = Geometry.of(code.shape, lines, array, size)
    empty = np.zeros(code.shape, bool)
    empty[:4, 1] = empty[4:, 3] = True
    places = list(geometry.places(empty))
    assert len(places) == 2  # of four: three outputs of two devices fill the six columns of each row block
    assert [place.outputs.tolist() for place in places] == [[0, 0, 2, 2, 3, 3], [0, 0, 1, 1, 2, 2]]
    assert sum(target_arrays(code, place, array, size, empty).used.sum() for place in places) == 2 * 4 * 6


def test_the_devices_of_a_weight_may_lie_on_two_crossbars():
    """A crossbar ends wherever its columns do: five columns hold two weights and a quarter of the third."""
    array = layout(load_profile("rram"), bits=8)
    code = np.array([[255, 1, 128]], np.int16)
    geometry = Geometry.of((1, 3), Lines((1,), rows=1, cols=3), array, Crossbar(1, 5))
    held = [
        target_arrays(code, place, array, Crossbar(1, 5)).level[0].tolist() for place in geometry.places()
    ]
    assert math.ceil(3 * 4 / 5) == len(held)
    flat = [int(one.level[0, column]) for column in range(3) for one in held_levels(code, array)]
    assert list(itertools.chain(*held))[: len(flat)] == flat


def test_the_committed_schema_of_a_manifest_is_todays():
    """`nvaudit/mapping/manifest.schema.json` is what `python -m nvaudit.mapping` writes."""
    path = Path(manifest.__file__).with_name("manifest.schema.json")
    assert path.read_text(encoding="utf-8") == manifest.schema_text()
