"""An exploration audits the points of a space: its front is that of single audits, and it can be resumed."""

import pytest
from made_up import MadeUpPrices
from quick import audit

from nvaudit.errors import OptionError, ProfileError
from nvaudit.jobs.exploring import plan_exploration, run_exploration
from nvaudit.report.jsontext import to_json
from nvaudit.report.kinds import document_of, read_any
from nvaudit.report.render.markdown import markdown_document
from nvaudit.report.render.terminal import print_document

AXES = {"crossbar": ((64, 64),), "cell_bits": (1, 2), "adc_bits": (3, 5)}
FEW = {"trials": 8, "limit": 40, "workers": 0, "percentiles": (20.0,)}
DEVICE = "fefet1"


def explored(example, folder=None, axes=AXES, own=(), **options):
    plan = plan_exploration(
        example, DEVICE, None, axes=axes, own=dict(own), options=FEW | options, pricer=MadeUpPrices()
    )
    return run_exploration(plan, resume=folder)


@pytest.fixture(scope="module")
def found(example):
    return explored(example, own={"baseline": "adc_bits=5"})


def test_its_numbers_are_those_of_audits(example, found):
    """The KPP of each point of the front, its interval, and the nominal value are those of `audit`."""
    assert found.front
    for point in found.on_front:
        settings = {**point.settings, "crossbar": tuple(point.settings["crossbar"])}
        alone = audit(example, DEVICE, **settings, **FEW)
        assert point.kpp == alone.kpp[0]
        assert found.nominal == alone.nominal


def test_the_front_is_the_exhaustive_one(example, found):
    """The same points with the same KPPs; it takes fewer chips."""
    every = explored(example, exhaustive=True)
    assert found.front == every.front
    assert [p.kpp for p in found.on_front] == [p.kpp for p in every.on_front]
    assert every.effort.images_evaluated == every.effort.images_exhaustive == 4 * 8 * 40
    assert found.effort.images_evaluated < every.effort.images_evaluated
    costs = [p.cost.energy_j for p in found.on_front]
    assert costs == sorted(costs)


def test_no_inference_is_made_twice(example):
    """A chip that was looked at goes on from there: a point takes at most every chip on every sample."""
    axes = {**AXES, "adc_bits": (4, 5, 6)}
    report = explored(example, axes=axes, trials=20, percentiles=(5.0,), min_kpp=0.5)
    whole = explored(example, axes=axes, trials=20, percentiles=(5.0,), min_kpp=0.5, exhaustive=True)
    assert len(report.front) > 1
    assert all(point.images <= 20 * 40 for point in report.points)
    assert [p.kpp for p in report.on_front] == [p.kpp for p in whole.on_front]


def test_equal_chips_are_audited_once(example):
    """Of points that simulate the same chips only the cheapest is run; the others say which it is."""
    axes = {"crossbar": ((64, 64),), "cell_bits": (2,), "adc_bits": (3, 5), "copies": (4, 1, 2)}
    report = explored(example, axes=axes, own={"against": "area"})
    assert report.effort.combinations == 6
    same = [p for p in report.points if p.status == "same_chips"]
    assert [p.settings["copies"] for p in same] == [2, 2, 4, 4]
    for point in same:
        cheaper = report.point(point.against)
        assert cheaper.cost.area_m2 < point.cost.area_m2
        assert cheaper.settings == point.settings | {"copies": 1}
    quick = explored(example, axes=axes, own={"against": "latency"})
    assert {p.settings["copies"] for p in quick.points if p.status != "same_chips"} == {4}


def test_what_cannot_be_is_counted_and_named(example):
    """Combinations that the device refuses stand in the report with their reason and an example."""
    report = explored(example, axes=AXES | {"cell_bits": (2, 3, 4), "adc_bits": (4,)})
    assert [(group.count, group.example) for group in report.left_out] == [
        (1, "cell_bits=3"), (1, "cell_bits=4"),
    ]  # fmt: skip
    assert all("fefet1" in group.reason for group in report.left_out)
    with pytest.raises(ProfileError, match="no point of the design space can be"):
        explored(example, axes=AXES | {"cell_bits": (3,)})


def test_budgets_leave_points_out(example, found):
    """Dearer points are not audited; without any that is within, the report says so."""
    limit = sorted(p.cost.energy_j for p in found.points)[1]
    report = explored(example, own={"max_energy": limit})
    assert sum(p.status == "over_budget" for p in report.points) == 2
    assert report.effort.images_exhaustive == 2 * 8 * 40
    none = explored(example, own={"max_energy": limit / 1e6})
    assert (none.front, none.recommended) == ((), None)
    least = min(p.cost.energy_j for p in found.points)
    assert none.why == f"no point lies within the budget; the least energy {1e9 * least:.3g} nJ"
    (effort,) = (section for section in document_of(none).sections if section.name == "effort")
    assert "No chip was run." in effort.blocks[0].items


def test_a_wanted_kpp(example, found):
    """Only what reaches it is on the front; where nothing does, no point is recommended."""
    best = found.on_front[-1]
    report = explored(example, min_kpp=best.kpp.value)
    assert report.front == (best.number,)
    assert report.recommended == best.number
    assert report.point(best.number).gate.verdict in ("pass", "undecided")
    none = explored(example, min_kpp=0.999)
    assert none.recommended is None
    assert none.headline.startswith("of 4 points, no point reaches KPP 20 % 99.9 %")
    assert {p.status for p in none.points} == {"below"}


def test_the_baseline(found):
    """It is measured like a point, and what the recommended point saves is said for every cost."""
    base = found.baseline
    assert base.point.label == "cell_bits=1 adc_bits=5"
    chosen = found.point(found.recommended)
    assert base.saved["energy"] == pytest.approx(1 - chosen.cost.energy_j / base.point.cost.energy_j)
    assert set(base.saved) == {"energy", "edp", "latency", "area"}
    assert base.kpp_change == pytest.approx(chosen.kpp.value - base.point.kpp.value)


def test_it_goes_on_where_it_was_cut_off(example, found, tmp_path):
    """A resumed exploration runs no chip again, and finds the same."""
    first = explored(example, tmp_path)
    runs = []

    def told(what, done, total):
        runs.append(what)

    plan = plan_exploration(example, DEVICE, None, axes=AXES, own={}, options=FEW, pricer=MadeUpPrices())
    again = run_exploration(plan, told, tmp_path)
    assert [p.kpp for p in first.points] == [p.kpp for p in again.points]
    assert first.front == again.front == found.front


def test_a_remapped_model_is_an_axis(example, tmp_path):
    """It is made once for points whose weights lie alike, kept with the chips, and audited as by `audit`."""
    axes = {"crossbar": ((64, 64),), "cell_bits": (2,), "adc_bits": (4, 5), "remap": ("no", "yes")}
    report = explored(example, tmp_path, axes=axes, exhaustive=True)
    (remapped,) = tmp_path.glob("remapped-*.onnx")
    assert {p.label for p in report.points} == {
        f"adc_bits={bits} remap={made}" for bits in (4, 5) for made in ("no", "yes")
    }
    chosen = next(p for p in report.points if p.settings == {**p.settings, "adc_bits": 4, "remap": "yes"})
    harden, alone = chosen.command.split(" && ")
    assert harden.startswith(f"nvaudit harden {example} --method remap -o {example.stem}_remapped")
    assert alone.startswith(f"nvaudit audit {example.stem}_remapped.onnx")
    settings = {**chosen.settings, "crossbar": (64, 64)}
    del settings["remap"]
    data = example.with_suffix(".npz")
    if (tmp_path / f"{remapped.stem}.mapping.json").exists():
        del settings["code"]
    assert chosen.kpp == audit(remapped, DEVICE, data, **settings, **FEW).kpp[0]
    before = remapped.stat().st_mtime_ns
    again = explored(example, tmp_path, axes=axes, exhaustive=True)
    assert [p.kpp for p in again.points] == [p.kpp for p in report.points]
    assert remapped.stat().st_mtime_ns == before


def test_the_report_can_be_read_back_and_shown(found, capsys):
    """JSON keeps everything; the terminal has the front, the recommended point and its command."""
    from rich.console import Console

    kind, read = read_any(to_json(found), "x.json")
    assert (kind.name, read) == ("explore", found)
    print_document(document_of(found), Console(width=80, no_color=True))
    out = capsys.readouterr().out
    assert found.headline.split(":")[0] in out
    assert "--adc-bits" in out
    assert max(map(len, out.splitlines())) <= 80


def test_workers_change_nothing(example):
    """Chips in a worker process that stays for all points give the same report."""
    few = AXES | {"adc_bits": (5,)}
    here, there = (explored(example, axes=few, workers=workers, trials=4) for workers in (0, 1))
    assert [p.kpp for p in there.points] == [p.kpp for p in here.points]
    assert there.effort.images_evaluated == here.effort.images_evaluated


def test_contradictions(example):
    """Options of one audit, several sigmas, and unknown axes are refused by name."""
    with pytest.raises(OptionError, match="--tail: an exploration does not take it"):
        explored(example, tail=(0.1,))
    with pytest.raises(OptionError, match="--rare: an exploration does not take it"):
        explored(example, rare=(1e-3,))
    with pytest.raises(OptionError, match="--sigma: got 2 values"):
        explored(example, sigmas=(0.1, 0.2))
    with pytest.raises(OptionError, match="adc: there is no such option"):
        explored(example, axes={"adc": (4,)})


def test_a_time_limit_gives_the_cheap_end_of_the_front(example, found, monkeypatch, tmp_path):
    """Points that the time does not reach say so; the others, and their front, are as without a limit."""
    calls = iter(range(100))

    def due(stop, ahead_s=None):
        return ahead_s is None and next(calls) >= 2  # asked between points, not between chips

    with monkeypatch.context() as patch:
        patch.setattr("nvaudit.perturb.stop.Stop.due", due)
        boxed = explored(example, tmp_path / "kept", max_minutes=1.0)
    assert (boxed.time_boxed.done, boxed.time_boxed.wanted) == (2, 4)
    reached = [point for point in boxed.points if point.status != "not_reached"]
    assert tuple(reached) == boxed.points[:2]
    cheap = [point.number for point in reached]
    assert list(boxed.front) == [number for number in found.front if number in cheap]
    assert "2 of 4 points were done within 1 min (--max-minutes)" in boxed.notes[0]
    assert "not reached in the time" in markdown_document(document_of(boxed))
    assert "--max-minutes" not in boxed.points[0].command
    again = explored(example, tmp_path / "kept")
    assert [(p.number, p.kpp) for p in again.points] == [(p.number, p.kpp) for p in found.points]


def test_no_time_at_all(example):
    """Nothing is recommended, and the report says why."""
    none = explored(example, max_minutes=1e-6)
    assert (none.front, none.recommended) == ((), None)
    assert none.why == "no point was run before the time was over; give more --max-minutes"
    assert {point.status for point in none.points} == {"not_reached"}
