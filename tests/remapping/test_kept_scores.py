"""A calibration that was interrupted goes on where it was."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nvaudit.errors import KeptError
from nvaudit.jobs.remapping import run_remap
from nvaudit.perturb.engine import Engine
from nvaudit.remapping.spec import make_remap_spec

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"


@pytest.fixture
def spec(tmp_path):
    """A remapping of the example without a limit of time, so that it is the same whatever it takes."""

    def make(**options):
        for suffix in (".onnx", ".npz"):
            shutil.copy(EXAMPLE.with_suffix(suffix), tmp_path / f"m{suffix}")
        few = {"calibration_chips": 4, "calibration_images": 16, "limit": 24, "trials": 0, "time_budget": 0,
               "rounding": False, "recalibrate": False}  # fmt: skip
        return make_remap_spec(
            **{"model": tmp_path / "m.onnx", "device": "rram", "sigma": 0.4, "workers": 0, **few, **options}
        )

    return make


@pytest.fixture
def chips_run(monkeypatch):
    """The chips that are run, one entry each; an interrupt comes after as many as its ``stop`` says."""

    class Run(list):
        stop = None

    run, chip = Run(), Engine.chip

    def counted(self, *args, **more):
        if run.stop is not None and len(run) == run.stop:
            raise KeyboardInterrupt
        outcome = chip(self, *args, **more)
        run.append(args[3])
        return outcome

    monkeypatch.setattr(Engine, "chip", counted)
    return run


def steps(report):
    """What was tried and measured, without seconds."""
    return [step.model_dump(exclude={"seconds"}) for step in report.steps]


def test_what_was_measured_is_not_measured_again(spec, chips_run, tmp_path):
    """After an interrupt the same command runs the other chips only, and writes the same model."""
    whole = run_remap(spec(), tmp_path / "a.onnx")
    needed = len(chips_run)
    chips_run.clear()
    chips_run.stop = 12
    with pytest.raises(KeyboardInterrupt):
        run_remap(spec(), tmp_path / "b.onnx", resume=tmp_path / "kept")
    assert not (tmp_path / "b.onnx").exists()
    chips_run.clear()
    chips_run.stop = None
    again = run_remap(spec(), tmp_path / "b.onnx", resume=tmp_path / "kept")
    assert steps(again) == steps(whole)
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()
    # The first two time the model, which a run that goes on does not do again.
    assert len(chips_run) == needed - 12
    assert any("scores of the calibration's chips are those of a run before" in note for note in again.notes)


def test_more_time_goes_on_with_the_search(spec, chips_run, tmp_path):
    """What there was no time for is tried when there is more, on the sizes that fit then."""
    output, folder = tmp_path / "o.onnx", tmp_path / "kept"
    short = run_remap(spec(time_budget=0.001), output, resume=folder)
    assert [step.name for step in short.steps] == ["original"]
    done = run_remap(spec(time_budget=0.001), output, resume=folder)
    assert done == short  # as much time again changes nothing
    longer = run_remap(spec(time_budget=0), output, resume=folder)
    assert len(longer.steps) > 3
    chips_run.clear()
    assert steps(run_remap(spec(time_budget=0), output, resume=folder)) == steps(longer)
    assert not chips_run


def test_scores_of_another_run_are_refused(spec, tmp_path):
    """Another device, or sizes that are damaged, are named with the folder."""
    folder = tmp_path / "kept"
    run_remap(spec(time_budget=0.001), tmp_path / "o.onnx", resume=folder)
    (folder / "remapping.json").unlink()
    with pytest.raises(KeptError, match=r"kept.calibration: its chips are of another run: .*sigma"):
        run_remap(spec(sigma=0.2), tmp_path / "o.onnx", resume=folder)
    sizes = folder / "calibration" / "sizes.json"
    for text in ("{", "[]", json.dumps({"samples": 1})):
        sizes.write_text(text)
        with pytest.raises(KeptError, match=r"sizes.json: damaged; name another folder"):
            run_remap(spec(), tmp_path / "o.onnx", resume=folder)


def test_the_task_of_chips_is_their_content(spec, tmp_path):
    """Another weight, or another number of samples, is another task; the folder of the run is not."""
    from dataclasses import replace

    from nvaudit.jobs.remapping import _bench, _conditions, settle_metric
    from nvaudit.remapping.kept_scores import task_of
    from nvaudit.session import prepare

    tasks = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        session = prepare(make_run(spec()), tmp_path / name)
        metric = settle_metric(session, Engine(session.workload).probe())
        bench = _bench(session, _conditions(spec(), session, metric), tmp_path / name / "bench")
        key, values = next(iter(bench.values.items()))
        other = np.array(values)
        other.flat[np.abs(other).argmax()] *= 2
        tasks.append(
            (task_of(bench.workload), task_of(bench._with({key: other})), task_of(bench.workload, 3))
        )
        assert task_of(replace(bench.workload, seed=9)) not in tasks[-1]
    assert tasks[0] == tasks[1]
    assert len(set(tasks[0])) == 3


def make_run(spec):
    """The audit specification that calibration is prepared from."""
    from nvaudit.spec import make_spec

    return make_spec(**spec.audit_options())
