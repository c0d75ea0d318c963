"""nvaudit.roofline: each number of levels is an audit; the device stays the same; what cannot be run."""

import pytest
from quick import audit

from nvaudit import roofline
from nvaudit.device import load_profile
from nvaudit.errors import NvauditError, OptionError, ProfileError
from nvaudit.jobs import rooflining
from nvaudit.jobs.rooflining import plan_roofline
from nvaudit.report.jsontext import to_json

FEW = {"trials": 12, "limit": 60, "workers": 0}
SMALL = {"trials": 3, "limit": 40, "workers": 0}
DEVICE = "rram_65nm"


@pytest.fixture(scope="module")
def found(example):
    return roofline(example, DEVICE, cell_bits=(4, 1, 2), **FEW)


def run_count(monkeypatch) -> list[int | None]:
    """Bits per cell of the audits that run from now on."""
    ran = []
    real = rooflining.run_audit
    monkeypatch.setattr(
        rooflining, "run_audit", lambda spec, *r: (ran.append(spec.cell_bits), real(spec, *r))[1]
    )
    return ran


def test_each_level_is_an_audit(example, found):
    """Quantised, mean and KPP of a number of levels are those of `audit`, bit for bit."""
    assert [level.levels for level in found.levels] == [2, 4, 16]
    for level in found.levels:
        alone = audit(example, DEVICE, cell_bits=level.cell_bits, **FEW)
        assert level.quantised == alone.quantised
        assert level.device.kpp == alone.kpp[0]
        assert (level.device.mean, level.device.std) == (alone.trials.mean, alone.trials.std)
        assert level.size.devices == sum(tensor.devices or 0 for tensor in alone.tensors)
        assert level.size.crossbars == sum(tensor.crossbars or 0 for tensor in alone.tensors)
        assert (level.adc, level.both) == (None, None)
    assert found.nominal == alone.nominal


def test_more_levels_need_fewer_devices(found):
    """The quantised model does not depend on the cells; the devices do, by the slices."""
    assert len({level.quantised for level in found.levels}) == 1
    sizes = [level.size.devices for level in found.levels]
    assert [level.slices for level in found.levels] == [8, 4, 2]
    assert sizes[0] == 2 * sizes[1] == 4 * sizes[2]


def test_the_best_is_the_best(found):
    """By the KPP, or by the mean where that is asked for."""
    values = {level.levels: level.device.kpp.value for level in found.levels}
    assert values[found.best] == max(values.values())
    assert found.headline.startswith(f"{found.best} levels are best of 3 by KPP 1 %: KPP 1 % top1 ")


def test_default_levels(example):
    """From 2 to the profile's own number; an analog device is cut into up to 16."""
    for device, bits in (("fefet1", [1, 2]), (DEVICE, [1, 2, 3, 4]), ("rram_milo2021", [1, 2, 3, 4])):
        plan = plan_roofline(example, device, None, options={})
        assert list(plan.ideal) == bits
        assert [spec.cell_bits for spec in plan.ideal.values()] == bits
        assert (plan.converted, plan.skipped) == ({}, ())
        assert any("the device is analog" in note for note in plan.notes) == (device == "rram_milo2021")


def test_sigma_in_level_spacings_is_held_in_conductance(example):
    """0.3 spacings of 4 levels are 0.1 of 2 levels; the number at the profile's own levels is untouched."""
    held = roofline(example, "rram", sigmas=(0.3,), **SMALL)
    points = [level.operating_point for level in held.levels]
    assert [(point.sigma, point.level_of) for point in points] == [(0.3, "of 2-bit cells"), (0.3, None)]
    assert any("the device stays the same: sigma 0.3" in note for note in held.notes)
    for how in ({"sigmas": (0.3,)}, {"sigmas": (0.3 * 1 / 3,), "sigma_unit": "level"}):
        alone = audit(example, "rram", cell_bits=1, **how, **SMALL)
        assert held.levels[0].device.kpp == alone.kpp[0]
    own = audit(example, "rram", sigmas=(0.3,), **SMALL)
    assert held.levels[1].device.kpp == own.kpp[0]


def test_sigma_by_default_and_literally(example):
    """The profile's default is held too; with a unit the number is taken as it stands."""
    default = plan_roofline(example, "rram", None, options={})
    assert [spec.sigmas for spec in default.ideal.values()] == [(), ()]
    assert any(f"sigma {load_profile('rram').sigma.default:g} is in" in note for note in default.notes)
    options = {"sigmas": (0.3,), "sigma_unit": "level"}
    literal = plan_roofline(example, "rram", None, options=options)
    assert {spec.sigmas for spec in literal.ideal.values()} == {(0.3,)}
    assert any("the more levels, the better the device" in note for note in literal.notes)
    log = plan_roofline(example, DEVICE, None, options={"sigmas": (0.2,)})
    assert {spec.sigmas for spec in log.ideal.values()} == {(0.2,)}


@pytest.fixture(scope="module")
def converted(example):
    return roofline(example, DEVICE, cell_bits=(4,), adc_bits=4, crossbar=(64, 64), **SMALL)


def test_converters_are_those_of_an_audit(example, converted):
    """ADC alone is the audit's quantised model, both are its chips; without them it is the plain audit."""
    assert converted.converters == {"--crossbar": [64, 64], "--adc-bits": 4, "--adc-range": "max"}
    for level in converted.levels:
        plain = audit(example, DEVICE, cell_bits=level.cell_bits, **SMALL)
        real = audit(example, DEVICE, cell_bits=level.cell_bits, adc_bits=4, crossbar=(64, 64), **SMALL)
        assert (level.quantised, level.device.kpp) == (plain.quantised, plain.kpp[0])
        assert (level.adc, level.both.kpp) == (real.quantised, real.kpp[0])
        assert level.both.mean == real.trials.mean
        assert level.size.crossbars == real.crossbar.crossbars
    assert any(level.adc < level.quantised for level in converted.levels)


def test_fine_converters_cost_nothing(example):
    """16 bits: the chips of both are those of the device alone, and the ADC does not limit."""
    fine = roofline(example, DEVICE, cell_bits=(4,), adc_bits=16, **SMALL).levels[0]
    assert fine.adc == pytest.approx(fine.quantised, abs=1 / SMALL["limit"] + 1e-9)
    assert fine.both.mean == pytest.approx(fine.device.mean, abs=1 / SMALL["limit"])
    assert fine.limit in ("device", "neither")


def test_converters_without_variation(example):
    """At sigma 0 device and ADC part: both together are the ADC alone."""
    still = roofline(
        example, DEVICE, cell_bits=(4,), sigmas=(0.0,), adc_bits=3, crossbar=(64, 64), **SMALL
    ).levels[0]
    assert still.device.kpp.value == still.quantised
    assert still.both.kpp.value == still.adc < still.quantised
    assert still.limit == "adc"


def test_converter_options_need_converters(example, monkeypatch):
    """As for an audit."""
    ran = run_count(monkeypatch)
    with pytest.raises(OptionError, match="give --adc-bits too"):
        roofline(example, DEVICE, dac_bits=8)
    assert ran == []


def test_no_variation_costs_nothing(example):
    """At sigma 0 the chips are the quantised model, nothing limits, and the smallest array is best value."""
    still = roofline(example, DEVICE, cell_bits=(2, 4), sigmas=(0.0,), **SMALL)
    for level in still.levels:
        assert level.device.kpp.value == level.quantised
        assert level.device.mean == pytest.approx(level.quantised, abs=1e-12)
        assert level.limit == "neither"
    assert still.cheapest == 16


def test_what_the_profile_cannot_do_is_left_out(example, monkeypatch):
    """With the reason; the other levels run."""
    ran = run_count(monkeypatch)
    mixed = roofline(example, "fefet1", cell_bits=(2, 3), **SMALL)
    assert ran == [2]
    assert [(each.levels, each.cell_bits) for each in mixed.skipped] == [(8, 3)]
    assert "4 entries for 8 levels" in mixed.skipped[0].reason
    assert list(plan_roofline(example, "rram", None, cell_bits=(3, 4), options={}).ideal) == [3, 4]
    options = {"sigmas": (0.15,), "sigma_unit": "full_scale"}
    with pytest.raises(ProfileError, match=r"^sigma: 0.15 is outside the valid range 0 … 0.133"):
        plan_roofline(example, "rram", None, cell_bits=(3, 4), options=options)


def test_nothing_that_can_be_run_is_an_error(example, monkeypatch):
    """Then there is no result, and the reasons are the message."""
    ran = run_count(monkeypatch)
    with pytest.raises(
        ProfileError, match=r"none of the numbers of levels can be run: 8 levels: .*4 entries"
    ):
        roofline(example, "fefet1", cell_bits=(3, 4), **FEW)
    assert ran == []


def test_interpolated_levels_are_said(example):
    """8 levels are not among 16; a profile without laws by level has nothing to interpolate."""
    notes = plan_roofline(example, DEVICE, None, cell_bits=(2, 3), options={}).notes
    assert any(note.startswith("8 levels do not lie on the profile's 16") for note in notes)
    assert plan_roofline(example, DEVICE, None, cell_bits=(2,), options={}).notes == ()


def test_resume(example, found, tmp_path, monkeypatch):
    """A roofline that fails in its second level goes on with it, and gives what one go gives."""
    real = rooflining.run_audit

    def fail(spec, *rest):
        if spec.cell_bits == 4:
            raise NvauditError("power cut")
        return real(spec, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(rooflining, "run_audit", fail)
        with pytest.raises(NvauditError, match="power cut"):
            roofline(example, DEVICE, cell_bits=(1, 4), resume=tmp_path, **FEW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2-levels"]
    told = []
    again = roofline(
        example, DEVICE, cell_bits=(1, 4), resume=tmp_path, progress=lambda what, *_: told.append(what), **FEW
    )
    assert [level.device for level in again.levels] == [found.levels[i].device for i in (0, 2)]
    assert "resumed: 12 of 12 chips" in again.levels[0].events[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["16-levels", "2-levels"]
    assert any(what.startswith("2 levels, ideal converters (1 of 2): ") for what in told)
    assert any(what.startswith("16 levels, ideal converters (2 of 2): chips") for what in told)


def test_equal_runs_give_equal_text(example):
    """But for seconds and workers."""

    def text(workers):
        one = roofline(example, DEVICE, cell_bits=(2,), **(SMALL | {"workers": workers}))
        level = one.levels[0].model_copy(update={"seconds": 0.0, "run": {**one.levels[0].run, "workers": 0}})
        return to_json(one.model_copy(update={"levels": (level,), "timing": {}}))

    assert text(0) == text(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell_bits": ()}, r"--cell-bits: got \(\); use whole numbers"),
        ({"cell_bits": (0,)}, "--cell-bits: got 0; use whole numbers from 1 to 8"),
        ({"cell_bits": (9,)}, "--cell-bits: got 9"),
        ({"cell_bits": (1.5,)}, "--cell-bits: got 1.5"),
        ({"cell_bits": (True,)}, "--cell-bits: got True"),
        ({"rank_by": "beauty"}, "--rank: got 'beauty'; use one of kpp, mean"),
        ({"margin": -1}, "--margin: got -1"),
        ({"margin": float("nan")}, "--margin: got nan"),
        ({"sigmas": (0.1, 0.2)}, "--sigma: got 2 values; a roofline stands at one"),
        ({"percentiles": (1, 5)}, "--percentile: got 2 values"),
        ({"sigma_unit": "weight_max", "sigmas": (0.1,)}, "does not know cells"),
        ({"min_kpp": 0.9}, "--min-kpp: a roofline does not take it"),
        ({"roughness": True}, "--roughness: a roofline does not take it"),
        ({"trials": 0}, "--trials: got 0"),
        ({"nonsense": 1}, "nonsense: there is no such option"),
    ],
)
def test_wrong_options(example, monkeypatch, options, message):
    """Are refused before anything runs."""
    ran = run_count(monkeypatch)
    with pytest.raises(OptionError, match=message):
        roofline(example, **options)
    assert ran == []


@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        ("rram65", {}, "rram65"),
        (DEVICE, {"sigmas": (9.0,)}, "sigma: 9 is outside the valid range"),
        (DEVICE, {"enable": ("drift",)}, "'drift' is not in profile"),
    ],
)
def test_wrong_device(example, monkeypatch, device, options, message):
    """What is wrong at every number of levels is an error, not a list of levels left out."""
    ran = run_count(monkeypatch)
    with pytest.raises(ProfileError, match=message):
        roofline(example, device, cell_bits=(1, 2), **options)
    assert ran == []
