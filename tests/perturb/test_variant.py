"""Variants of a chip: what stays noisy is the same, bit for bit, as on the whole chip."""

import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from nvaudit.device import load_profile, operating_point
from nvaudit.mapping.conductance import layout
from nvaudit.perturb.chip import MappedTensor, TensorLaw
from nvaudit.perturb.engine import QUANTISED, Engine
from nvaudit.perturb.variant import WHOLE, Variant, acting_terms, limit_terms, spread_evenly
from nvaudit.rng import stream
from nvaudit.session import prepare
from nvaudit.spec import make_spec

CODE = stream(0, "codes").integers(-255, 256, (40, 30)).astype(np.int16)


@contextmanager
def engine_for(example, folder, device, **options):
    """The engine of a run."""
    folder.mkdir(exist_ok=True)
    session = prepare(make_spec(model=str(example), device=device, **options), folder)
    yield Engine(session.workload)
    shutil.rmtree(folder, ignore_errors=True)


def filled(engine, trial, variant=WHOLE):
    """What a chip puts into each slot, and which tensor each belongs to."""
    numbers = {tensor.key: number for number, tensor in enumerate(engine._w.tensors)}
    return {
        slot.name: (numbers[slot.weight_key], slot.variance, array)
        for slot, array in engine.fill(0, trial, variant)
    }


def law_at(device, tensor_bits=8, **point):
    """A tensor on a device."""
    profile = load_profile(device)
    array = layout(profile, bits=tensor_bits)
    tensor = MappedTensor("w", CODE, np.float32(0.01), array, 255)
    return TensorLaw(tensor, operating_point(profile, **point))


def bits(draw):
    """Everything of a draw, to compare exactly."""
    variance = b"" if draw.read_variance is None else draw.read_variance.tobytes()
    return draw.weights.tobytes(), variance


@pytest.mark.parametrize(
    ("device", "options"),
    [("rram", {}), ("rram_65nm", {}), ("pcm", {"time_s": 86400.0}), ("rram", {"every_device": True})],
    ids=["one draw per weight", "devices", "drift and read noise", "every device"],
)
def test_noisy_tensors_are_those_of_the_whole_chip(example, tmp_path, device, options):
    """Only A, and all but A: noisy tensors bit for bit as on the whole chip, the others quantised."""
    with engine_for(example, tmp_path / "w", device, **options) as engine:
        whole, quantised = filled(engine, 3), filled(engine, QUANTISED)
        tensors = {tensor for tensor, _, _ in whole.values()}
        assert len(tensors) > 2
        for one in tensors:
            for noisy in ({one}, tensors - {one}):
                found = filled(engine, 3, Variant(frozenset(noisy)))
                for name, (tensor, _, array) in found.items():
                    wanted = whole if tensor in noisy else quantised
                    assert array.tobytes() == wanted[name][2].tobytes()
        changed = [name for name in whole if whole[name][2].tobytes() != quantised[name][2].tobytes()]
        assert {whole[name][0] for name in changed} == tensors  # the comparison can fail


def test_quantised_tensors_have_no_read_noise(example, tmp_path):
    """The variance of reads is zero where a tensor is switched off, and positive where it is not."""
    with engine_for(example, tmp_path / "w", "pcm") as engine:
        found = filled(engine, 0, Variant(frozenset({0})))
        variances = {tensor: array for tensor, variance, array in found.values() if variance}
        assert len(variances) > 1
        assert variances.pop(0).any()
        assert not any(array.any() for array in variances.values())


def test_variants_follow_each_other(example, tmp_path):
    """An engine that has just run another variant gives the same chip."""
    with engine_for(example, tmp_path / "w", "pcm", time_s=100.0) as engine:
        before = filled(engine, 1)
        filled(engine, 1, Variant(terms=frozenset({"drift"})))
        filled(engine, 2, Variant(frozenset({1}), frozenset({"read"})))
        after = filled(engine, 1)
        assert all(before[name][2].tobytes() == after[name][2].tobytes() for name in before)


@pytest.mark.parametrize("device", ["pcm", "hermes_1device"])
def test_terms_that_stay_keep_their_numbers(device):
    """Without drift or decay, the devices are those of the same chip at time 0, where nothing has drifted."""
    late, early = law_at(device, time_s=86400.0), law_at(device, time_s=0.0)
    early = TensorLaw(early.tensor, early.point, every_device=True)
    silent = limit_terms(early, frozenset({"programming"}))
    found = limit_terms(late, frozenset({"programming"}))
    for trial in range(3):
        assert bits(found.draw(0, trial)) == bits(silent.draw(0, trial))
        assert bits(found.draw(0, trial)) != bits(late.draw(0, trial))


def test_all_terms_are_the_whole_chip():
    """Naming every term changes nothing; None is the law itself."""
    for device in ("pcm", "rram_65nm", "rram", "fefet1", "cmo_hfox"):
        law = law_at(device)
        every = frozenset(term.name for term in law.point.terms)
        assert bits(limit_terms(law, every).draw(0, 5)) == bits(law.draw(0, 5))
        assert limit_terms(law, None) is law


def test_no_terms_are_the_quantised_weights():
    """With every term off the weights are the codes."""
    for device in ("pcm", "rram_65nm", "rram", "cmo_hfox"):
        draw = limit_terms(law_at(device), frozenset()).draw(0, 0)
        assert np.array_equal(draw.weights, CODE * np.float32(0.01))
        assert draw.read_variance is None


def test_limits_stay():
    """A clip acts in every variant: without it, programming would leave the window."""
    law = limit_terms(law_at("cmo_hfox", time_s=1.0), frozenset({"programming"}))
    assert [term.kind for term in law.point.terms] == ["normal", "clip"]
    free = TensorLaw(law.tensor, replace(law.point, terms=law.point.terms[:1]), every_device=True)
    limit = 255 * np.float32(0.01) + 1e-6
    assert law.draw(0, 0).weights.max() <= limit < free.draw(0, 0).weights.max()


def test_devices_are_drawn_one_by_one_if_the_whole_chip_is():
    """Also where the terms that are left could be collapsed to one draw per weight."""
    law = law_at("pcm")
    assert law.collapsed is None
    assert limit_terms(law, frozenset({"programming"})).collapsed is None
    assert limit_terms(law_at("rram"), frozenset({"programming"})).collapsed is not None


@pytest.mark.parametrize(
    ("device", "point", "wanted"),
    [
        ("pcm", {}, ("programming", "read")),
        ("pcm", {"time_s": 60.0}, ("programming", "drift", "read")),
        ("pcm", {"time_s": 60.0, "disable": ("read",)}, ("programming", "drift")),
        ("rram", {}, ("programming",)),
        ("rram", {"sigma": 0.0}, ()),
    ],
)
def test_acting_terms(device, point, wanted):
    """Terms that do anything at the operating point, in order; limits are none."""
    law = law_at(device, **point)
    assert acting_terms(law.point, [law.tensor.array]) == wanted


def test_samples_are_spread_over_the_set():
    """Distinct, in order, from the first on; a sorted set keeps its classes; all of them if asked."""
    for count, images in ((10, 10), (10, 1), (1000, 7), (9999, 4321)):
        chosen = spread_evenly(count, images)
        assert chosen.size == images
        assert chosen[0] == 0
        assert (np.diff(chosen) > 0).all()
        assert chosen[-1] < count
    assert np.array_equal(spread_evenly(10, 10), np.arange(10))
    labels = np.repeat(np.arange(5), 200)
    assert np.bincount(labels[spread_evenly(1000, 100)]).tolist() == [20] * 5
