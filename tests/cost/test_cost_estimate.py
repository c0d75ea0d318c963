"""Energies are exact averages, shares add up, and what is counted is what is mapped."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reference_network import ROOT, reference_device

from nvaudit.cost.chips import chip_energies
from nvaudit.cost.crossbars import conductances
from nvaudit.cost.design import DesignPoint, HardwareCost
from nvaudit.cost.estimate import cost_of
from nvaudit.cost.inputs import InputStatistics, assumed_inputs
from nvaudit.cost.mesh import TileMesh
from nvaudit.cost.workload import CostLayer, ModelWorkload, measure_workload
from nvaudit.data import load_dataset
from nvaudit.device import DeviceProfile, load_profile, operating_point, override_profile, parse_profile
from nvaudit.errors import OptionError
from nvaudit.mapping.conductance import held_levels, layout
from nvaudit.mapping.groups import saved
from nvaudit.mapping.select import select
from nvaudit.mapping.tiling import Crossbar, Lines, tiling_of
from nvaudit.model import analyse_batch, constants, load_model
from nvaudit.model.layer_input import layer_inputs
from nvaudit.model.macs.steps import INPUT
from nvaudit.model.roles import CrossbarMatrix
from nvaudit.perturb.probe import probe_model
from nvaudit.rng import stream
from nvaudit.session import input_specs
from nvaudit.technology import Technology, load_technology, parse_technology

ROWS, OUTPUTS, VECTORS, BITS = 11, 6, 40, 4


def changed(name: str = "cmos_22nm_neurosim", **parts: object) -> Technology:
    """A bundled technology with blocks replaced."""
    data = load_technology(name).model_dump(mode="json")
    return parse_technology(json.dumps(data | parts), "changed")


def one_layer(code: np.ndarray, inputs: np.ndarray) -> ModelWorkload:
    """A product of given codes with given input codes."""
    density = np.stack([((inputs >> k) & 1).mean(axis=1) for k in range(BITS)], axis=-1)[None]
    share = inputs / (2**BITS - 1)
    statistics = InputStatistics(
        {BITS: density}, np.square(share).mean(axis=1)[None], share.mean(axis=1)[None]
    )
    rows, outputs = code.shape
    layer = CostLayer(
        "w", "MatMul", code.astype(np.int16), CrossbarMatrix(1, rows, outputs), Lines((1,), rows, outputs),
        float(inputs.shape[1]), 1.0, statistics,
    )  # fmt: skip
    return ModelWorkload((layer,), {}, {}, (), 1.0, 1.0, (), (BITS,), 1)


@pytest.fixture
def numbers() -> tuple[np.ndarray, np.ndarray]:
    """Codes of a small matrix, and inputs of its rows."""
    gen = stream(1, "cost tests")
    return gen.integers(-15, 16, (ROWS, OUTPUTS)), gen.integers(0, 2**BITS, (ROWS, VECTORS))


def device(encoding: str) -> DeviceProfile:
    return override_profile(reference_device(), weight_bits=4, cell_bits=2, encoding=encoding)


@pytest.mark.parametrize("encoding", ["sign_magnitude", "differential", "offset"])
@pytest.mark.parametrize("mode", ["bit_serial", "parallel"])
def test_reading_devices_takes_what_every_device_takes_in_every_read(
    numbers: tuple[np.ndarray, np.ndarray], encoding: str, mode: str
) -> None:
    """Added up device by device, vector by vector, bit by bit, it is the same number: averages are exact."""
    code, inputs = numbers
    profile = device(encoding)
    parts = load_technology("cmos_22nm_neurosim").model_dump(mode="json")
    technology = changed(
        cell=parts["cell"] | {"wordline_capacitance": None},
        hierarchy=parts["hierarchy"] | {"reference_column": False},
    )
    array = layout(profile, bits=4)
    low, high = 0.1e-6, 10e-6
    access = technology.cell.access_resistance.si / high
    total = np.zeros(code.shape)
    for held in held_levels(code, array):
        g = low + held.level * (high - low) / 3
        total += 1 / (1 / g + access)
    joules = 0.0
    watts, seconds = technology.read.sense.power.si, 6e-9
    for vector, plane in itertools.product(range(VECTORS), range(BITS if mode == "bit_serial" else 1)):
        x = inputs[:, vector]
        driven = (x >> plane) & 1 if mode == "bit_serial" else np.square(x / 15)
        joules += watts * seconds * float(driven @ total.sum(axis=1))
    point = DesignPoint(profile, Crossbar(16, 64), 5, input_bits=BITS, input_mode=mode)
    cost = cost_of(one_layer(code, inputs), technology, point)
    assert cost.components["crossbar"].energy_j == pytest.approx(joules, rel=1e-9)


def test_mean_values_of_the_array_err_more_than_its_own(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    """Reference 6, the same ablation: one mean input misses what rows and weights have in common."""
    code, inputs = numbers
    code = np.sort(np.abs(code), axis=0)  # large weights where inputs are large, as layers after a Relu have
    inputs = np.sort(inputs, axis=0)
    profile = device("sign_magnitude")
    point = DesignPoint(profile, Crossbar(16, 64), 5, input_bits=BITS)
    technology = changed()
    workload = one_layer(code, inputs)
    exact = cost_of(workload, technology, point).components["crossbar"].energy_j
    (layer,) = workload.layers
    flat = replace(layer.inputs, densities={BITS: np.full((1, 1, BITS), layer.inputs.densities[BITS].mean())})
    blunt = replace(workload, layers=(replace(layer, inputs=flat),), cache={})
    off = cost_of(blunt, technology, point).components["crossbar"].energy_j / exact - 1
    assert off < -0.05


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelWorkload, Path]:
    """The example network with what its layers take."""
    path = ROOT / "examples" / "digits_cnn.onnx"
    loaded = load_model(path)
    rebatch = analyse_batch(loaded.model)
    dataset = load_dataset(
        None, input_specs(loaded, rebatch), model_path=path, limit=16, scratch=tmp_path_factory.mktemp("s")
    )
    decisions = select(constants(loaded))
    return measure_workload(loaded, rebatch, decisions, dataset, input_bits=(4, 8)), path


@pytest.mark.parametrize("technology", ["cmos_22nm_neurosim", "cmos_32nm_isaac", "cmos_65nm_siam"])
@pytest.mark.parametrize("mode", ["bit_serial", "parallel"])
def test_shares_add_up(example: tuple[ModelWorkload, Path], technology: str, mode: str) -> None:
    """Energy, latency and area of the components, and of the layers, are those of the whole."""
    workload, _ = example
    point = DesignPoint(load_profile("rram_65nm"), Crossbar(128, 128), 6, input_mode=mode, copies=3)
    cost = cost_of(workload, load_technology(technology), point)
    assert all(part.energy_j >= 0 for part in cost.components.values())
    for name in ("energy_j", "area_m2"):
        by_layer = sum(getattr(layer.total, name) for layer in cost.layers)
        assert by_layer == pytest.approx(getattr(cost, name), rel=1e-12)
    assert sum(part.latency_s for part in cost.components.values()) == pytest.approx(cost.latency_s)
    assert cost.interval_s == cost.latency_s
    faster = cost_of(workload, load_technology(technology), replace(point, pipelined=True))
    assert faster.interval_s < faster.latency_s == pytest.approx(cost.latency_s)
    assert faster.components["static"].energy_j < cost.components["static"].energy_j


def test_crossbars_are_counted_as_everywhere(example: tuple[ModelWorkload, Path]) -> None:
    """The one count of the mapping, whatever the bits of a cell and the size of a crossbar."""
    workload, _ = example
    for cells, size in ((1, 64), (2, 128), (4, 256)):
        profile = override_profile(load_profile("rram_65nm"), cell_bits=cells)
        array = layout(profile, bits=profile.weight_bits)
        cost = cost_of(
            workload, load_technology("cmos_65nm_siam"), DesignPoint(profile, Crossbar(size, size), 5)
        )
        for layer, found in zip(workload.layers, cost.layers, strict=False):
            tiling = tiling_of(layer.matrix, array, Crossbar(size, size))
            assert found.crossbars == tiling.crossbars
            assert found.utilisation == pytest.approx(tiling.utilisation)


def test_groups_of_zeros_take_nothing(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    """Conversions follow the columns that are left, and devices that are not there conduct nothing."""
    code, inputs = numbers
    code = np.where(code == 0, 1, code)
    code[:8, 2:5] = 0  # rows of the first crossbar, three outputs
    profile = device("sign_magnitude")
    lines, array, size = Lines((1,), ROWS, OUTPUTS), layout(profile, bits=4), Crossbar(8, 64)
    point = DesignPoint(profile, size, 5, input_bits=BITS)
    technology = changed(
        hierarchy=load_technology("cmos_22nm_neurosim").hierarchy.model_dump(mode="json")
        | {"reference_column": False}
    )
    plain = cost_of(one_layer(code, inputs), technology, point)
    left = cost_of(one_layer(code, inputs), technology, replace(point, skip_zero_groups=True))
    count = saved(code.astype(np.int16), lines, array, size)
    assert (plain.crossbars, left.crossbars) == (count.crossbars, count.kept)
    share = 1 - count.zero_groups / count.groups
    assert count.zero_groups == 3
    assert left.conversions == pytest.approx(share * plain.conversions)
    assert left.components["crossbar"].energy_j < plain.components["crossbar"].energy_j
    dense = cost_of(
        one_layer(np.where(code == 0, 1, code), inputs), technology, replace(point, skip_zero_groups=True)
    )
    assert dense.conversions == plain.conversions  # fmt: skip


def test_unused_columns_are_stepped_over_where_a_technology_says_so(
    numbers: tuple[np.ndarray, np.ndarray],
) -> None:
    """Time and drivers go with the columns in use for each ADC; what is converted stays the same."""
    workload, point = one_layer(*numbers), DesignPoint(device("offset"), Crossbar(64, 64), 5, BITS)
    own = load_technology("cmos_22nm_neurosim")
    used = own.model_copy(update={"mux": own.mux.model_copy(update={"scan": "used"})})
    everything, some = (cost_of(workload, technology, point) for technology in (own, used))
    columns = everything.conversions / VECTORS / BITS
    steps, all_steps = math.ceil(columns / 8), own.mux.columns_per_adc.count
    assert steps < all_steps
    for name, share in (("driver", steps / all_steps), ("adc", 1.0), ("shift_add", 1.0)):
        assert some.components[name].energy_j == pytest.approx(share * everything.components[name].energy_j)
    before, after = (cost.components["adc"].latency_s for cost in (everything, some))
    assert after == pytest.approx(steps / all_steps * before)


def test_inputs_are_those_of_the_rows(example: tuple[ModelWorkload, Path], tmp_path: Path) -> None:
    """Moments and bits of every row are those of its patches, unfolded one by one."""
    workload, path = example
    loaded = load_model(path)
    rebatch = analyse_batch(loaded.model)
    dataset = load_dataset(None, input_specs(loaded, rebatch), model_path=path, limit=16, scratch=tmp_path)
    weights = {c.weight.key: c.weight for c in constants(loaded) if c.weight is not None}
    for layer in workload.layers:
        (source,) = layer_inputs(weights[layer.key])
        values = probe_model(loaded, dataset, [source.value]).run(np.arange(16))[source.value]
        rows = np.concatenate([piece[0].reshape(-1, layer.matrix.rows) for piece in source.unfold(values)])
        share = rows / np.abs(values).max()
        assert layer.inputs.square[0] == pytest.approx(np.square(share).mean(axis=0), rel=1e-4, abs=1e-7)
        signed = values.min() < 0
        code = np.rint(share * (7 if signed else 15)).astype(int)
        for bit in range(4):
            wanted = ((code >> bit) & 1).mean(axis=0)
            assert layer.inputs.densities[4][0, :, bit] == pytest.approx(wanted, abs=2e-3)


def test_every_edge_of_the_graph_travels(example: tuple[ModelWorkload, Path]) -> None:
    """From the port through all layers, in their order, and back."""
    workload, _ = example
    edges = {(flow.source, flow.target) for flow in workload.flows}
    last = len(workload.layers) - 1
    assert edges == {(INPUT, 0), *((i, i + 1) for i in range(last)), (last, INPUT)}
    assert workload.unknown == ()


@pytest.mark.parametrize(
    ("tiles", "first", "second"), [(9, (0, 3), (3, 5)), (16, (2, 2), (5, 9)), (5, (4, 1), (0, 4))]
)
def test_links_carry_what_x_y_routes_lead_over_them(
    tiles: int, first: tuple[int, int], second: tuple[int, int]
) -> None:
    """Every pair of tiles walked link by link gives the same loads."""
    mesh = TileMesh(tiles)
    source, target = mesh.where(*first), mesh.where(*second)
    load = mesh.load(source, target, 10.0)
    walked = {"right": 0 * load.right, "left": 0 * load.left, "down": 0 * load.down, "up": 0 * load.up}
    for (r, c), (to_r, to_c) in itertools.product(np.argwhere(source), np.argwhere(target)):
        flits = 10.0 * source[r, c] * target[to_r, to_c]
        for x in range(min(c, to_c), max(c, to_c)):
            walked["right" if to_c > c else "left"][r, x] += flits
        for y in range(min(r, to_r), max(r, to_r)):
            walked["down" if to_r > r else "up"][y, to_c] += flits
    for name, wanted in walked.items():
        assert getattr(load, name) == pytest.approx(wanted)


def test_chips_without_noise_take_what_the_codes_say(example: tuple[ModelWorkload, Path]) -> None:
    """And with noise without a mean, chips take it on average."""
    workload, _ = example
    data = load_profile("rram_65nm").model_dump(mode="json", exclude_defaults=True)
    data["noise"] = [
        {"kind": "normal", "name": "program", "sigma": {"kind": "constant", "value": 1.0}, "unit": "sigma"}
    ]
    data["sigma"] = {"default": 0.0, "unit": "level", "min": 0.0, "max": 1.0}
    profile = parse_profile(json.dumps(data), "normal")  # fmt: skip
    technology = load_technology("cmos_22nm_neurosim")
    point = DesignPoint(profile, Crossbar(128, 128), 5)
    cost = cost_of(workload, technology, point)
    still = chip_energies(workload, technology, point, operating_point(profile, 0.0), cost.energy_j, chips=2)
    assert still == pytest.approx(cost.energy_j, rel=1e-6)
    noisy = chip_energies(workload, technology, point, operating_point(profile, 0.2), cost.energy_j, chips=12)
    assert 0 < noisy.std() < 0.05 * cost.energy_j
    assert abs(noisy.mean() / cost.energy_j - 1) < 0.02


def test_a_block_that_is_missing_is_not_modelled(example: tuple[ModelWorkload, Path]) -> None:
    """Each is named, and takes nothing."""
    workload, _ = example
    point = DesignPoint(load_profile("rram_65nm"), Crossbar(128, 128), 5)
    for name, part in (("buffer", "buffer"), ("htree", "htree"), ("noc", "noc"), ("digital", "digital")):
        cost: HardwareCost = cost_of(workload, changed(**{name: None}), point)
        assert any(f"no {name!r}" in text for text in cost.not_modelled)
        assert cost.components[part].energy_j == 0
    with pytest.raises(OptionError, match="has no multi-bit DAC"):
        cost_of(workload, changed(dac=None), replace(point, input_mode="parallel"))


def test_devices_in_levels_need_conductances(example: tuple[ModelWorkload, Path]) -> None:
    """Without them the devices' energy is left out, and the report says so; half of them is refused."""
    workload, _ = example
    point = DesignPoint(load_profile("fefet1"), Crossbar(128, 128), 5)
    technology = load_technology("cmos_65nm_siam")
    left_out = cost_of(workload, technology, point)
    assert any("states no conductances" in text for text in left_out.not_modelled)
    stated = cost_of(workload, technology, replace(point, g_max_us=10.0, on_off=100.0))
    assert stated.components["crossbar"].energy_j > left_out.components["crossbar"].energy_j
    with pytest.raises(OptionError, match="--on-off: missing"):
        conductances(load_profile("fefet1"), technology, 10.0, None)
    with pytest.raises(OptionError, match="rram_65nm states its conductances"):
        conductances(load_profile("rram_65nm"), technology, 10.0, 5.0)


def test_bit_densities_that_were_not_measured_are_refused() -> None:
    """A point asks for a resolution that the calibration pass did not look at."""
    layer = CostLayer(
        "w", "MatMul", np.ones((4, 4), np.int16), CrossbarMatrix(1, 4, 4), Lines((1,), 4, 4), 1.0, 16.0,
        assumed_inputs([8], "no data"),
    )  # fmt: skip
    workload = ModelWorkload((layer,), {}, {}, (), 32.0, 4.0, (), (8,), 0)
    point = DesignPoint(load_profile("rram_65nm"), Crossbar(16, 16), 5, input_bits=6)
    with pytest.raises(OptionError, match="input_bits 6: bit densities were measured for 8 bits"):
        cost_of(workload, load_technology("cmos_22nm_neurosim"), point)
