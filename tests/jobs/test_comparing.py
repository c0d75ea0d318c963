"""nvaudit.compare: the same conditions for all, read before the first one runs, finished models kept."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from nvaudit import audit, compare, landscape
from nvaudit.errors import DataError, ModelError, NvauditError, OptionError
from nvaudit.jobs import auditing, candidates, comparing
from nvaudit.report.jsontext import to_json
from nvaudit.rng import stream

FEW = {"trials": 20, "limit": 40, "sigmas": (0.3,), "roughness": False}


def variant(source: Path, target: Path, noise: float, prefix: str) -> Path:
    """A copy with other weights, under other names if there is a prefix."""
    model = onnx.load(source)
    names = {}
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim >= 2:
            draws = stream(1, "variant", tensor.name).standard_normal(values.shape)
            values = (values + noise * values.std() * draws).astype(values.dtype)
        names[tensor.name] = prefix + tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values, names[tensor.name]))
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
    onnx.save(model, target)
    return target


@pytest.fixture(scope="module")
def folder(example, tmp_path_factory) -> Path:
    """Models a, b (other weights) and c (other weights and names), with data in d.npz."""
    path = tmp_path_factory.mktemp("models")
    shutil.copy(example, path / "a.onnx")
    shutil.copy(example.with_suffix(".npz"), path / "d.npz")
    variant(example, path / "b.onnx", 0.3, "")
    variant(example, path / "c.onnx", 0.8, "other.")
    return path


@pytest.fixture
def models(folder) -> list[Path]:
    return [folder / name for name in ("a.onnx", "b.onnx", "c.onnx")]


@pytest.fixture(scope="module")
def compared(folder):
    return compare([folder / f"{name}.onnx" for name in "abc"], data=folder / "d.npz", **FEW)


def run_count(monkeypatch) -> list[str]:
    """Names of the models whose audits run from now on."""
    ran = []
    real = comparing.run_audit
    monkeypatch.setattr(
        comparing, "run_audit", lambda spec, *rest: (ran.append(Path(spec.model).stem), real(spec, *rest))[1]
    )
    return ran


def test_each_model_is_audited_as_by_itself(folder, compared):
    """The numbers of a model are those of `audit` with the same options."""
    for model in compared.models:
        alone = audit(folder / f"{model.name}.onnx", data=folder / "d.npz", **FEW)
        assert model.kpp == alone.kpp
        assert (model.mean, model.nominal) == (alone.trials.mean, alone.nominal)


def test_chips_are_told_apart(compared):
    """Models with the same tensors share their chips, others do not; all saw the same images."""
    names = {item.model: item.chips for item in compared.differences} | {compared.baseline: "baseline"}
    pair = {name: relation for name, relation in names.items() if relation != "baseline"}
    assert compared.baseline in ("a", "b")
    assert pair["c"] == "independent"
    assert set(pair.values()) == {"same", "independent"}
    assert {item.images for item in compared.differences} == {"same"}


def test_the_worse_model_is_last(compared):
    """Much changed weights lose."""
    assert compared.models[-1].name == "c"


def test_own_data(folder, models, tmp_path):
    """A model that preprocesses its inputs itself has data of its own; equal labels are the same images."""
    with np.load(folder / "d.npz") as stored:
        arrays = dict(stored)
    name = next(key for key in arrays if key != "y")
    np.savez(tmp_path / "twice.npz", **{name: arrays[name] * 2, "y": arrays["y"]})
    np.savez(tmp_path / "turned.npz", **{name: arrays[name][::-1], "y": arrays["y"][::-1]})
    for file, images in (("twice.npz", "same"), ("turned.npz", "different")):
        data = {models[0]: folder / "d.npz", "b": tmp_path / file}
        found = compare(models[:2], data=data, **FEW)
        assert found.differences[0].images == images


def test_data_beside_each_model(folder, models, tmp_path):
    """Without data each model has the file beside it, or all are label-free."""
    for name in ("a", "b"):
        shutil.copy(folder / f"{name}.onnx", tmp_path)
    free = compare([tmp_path / "a.onnx", tmp_path / "b.onnx"], **(FEW | {"limit": 8, "trials": 3}))
    assert free.label_free
    assert free.headline.startswith("LABEL-FREE")
    shutil.copy(folder / "d.npz", tmp_path / "a.npz")
    with pytest.raises(OptionError, match="a and b cannot be compared: labels: there and none"):
        compare([tmp_path / "a.onnx", tmp_path / "b.onnx"], **FEW)


def test_reports_are_not_run_again(folder, models, compared, tmp_path, monkeypatch):
    """Reports and models mix, and the result is that of running all."""
    reports = tmp_path / "reports"
    compare(models[:2], data=folder / "d.npz", reports=reports, **FEW)
    assert sorted(path.name for path in reports.iterdir()) == ["a.json", "b.json"]
    ran = run_count(monkeypatch)
    mixed = compare([reports / "a.json", reports / "b.json", models[2]], data=folder / "d.npz", **FEW)
    assert ran == ["c"]
    assert [m.name for m in mixed.models] == [m.name for m in compared.models]
    assert [m.kpp for m in mixed.models] == [m.kpp for m in compared.models]
    assert mixed.models[0].report is not None
    assert [d.kpp for d in mixed.differences] == [d.kpp for d in compared.differences]


def test_reports_under_other_conditions_are_refused_before_anything_runs(
    folder, models, tmp_path, monkeypatch
):
    """The message names the difference."""
    report = tmp_path / "a.json"
    report.write_text(to_json(audit(models[0], data=folder / "d.npz", **FEW)), encoding="utf-8")
    ran = run_count(monkeypatch)
    for changes, message in (
        ({"sigmas": (0.2,)}, "sigma: 0.3 and 0.2"),
        ({"percentiles": (5.0,)}, "percentile: 1.0 and 5.0"),
        ({"bits": 6}, "device: weight_bits: 8 and 6"),
    ):
        with pytest.raises(OptionError, match=f"a and b cannot be compared: {message}"):
            compare([report, models[1]], data=folder / "d.npz", **(FEW | changes))
    with pytest.raises(OptionError, match="cannot be compared: device: rram and fefet1; audit"):
        compare([report, models[1]], "fefet1", folder / "d.npz", **FEW)
    assert ran == []


def test_a_bad_model_is_found_before_the_first_one_runs(folder, models, tmp_path, monkeypatch):
    """A file that is no model, one that is not there, and data that do not fit."""
    ran = run_count(monkeypatch)
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        compare([models[0], tmp_path / "bad.onnx"], data=folder / "d.npz", **FEW)
    with pytest.raises(ModelError, match=r"gone\.onnx"):
        compare([models[0], tmp_path / "gone.onnx"], data=folder / "d.npz", **FEW)
    np.savez(tmp_path / "wrong.npz", x=np.zeros((4, 7), np.float32), y=np.zeros(4, np.int64))
    with pytest.raises(DataError, match=r"wrong\.npz|shape|input"):
        compare(models[:2], data={"a": folder / "d.npz", "b": tmp_path / "wrong.npz"}, **FEW)
    with pytest.raises(OptionError, match="cannot be read"):
        compare([models[0], tmp_path / "gone.json"], data=folder / "d.npz", **FEW)
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="schema_version"):
        compare([models[0], tmp_path / "other.json"], data=folder / "d.npz", **FEW)
    assert ran == []


def test_finished_models_are_not_run_again(folder, models, compared, tmp_path, monkeypatch):
    """A comparison that fails in its second model goes on with it; the result is that of one go."""
    real = comparing.run_audit

    def fail(spec, *rest):
        if spec.model.endswith("b.onnx"):
            raise NvauditError("power cut")
        return real(spec, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(comparing, "run_audit", fail)
        with pytest.raises(NvauditError, match="power cut"):
            compare(models, data=folder / "d.npz", resume=tmp_path, **FEW)
    assert len(list(tmp_path.iterdir())) == 1
    ran = run_count(monkeypatch)
    found = compare(models, data=folder / "d.npz", resume=tmp_path, **FEW)
    assert ran == ["b", "c"]
    assert len(list(tmp_path.iterdir())) == 3
    assert [m.kpp for m in found.models] == [m.kpp for m in compared.models]
    ran.clear()
    compare(models[::-1], data=folder / "d.npz", resume=tmp_path, workers=1, **FEW)
    assert ran == []


def test_more_chips_go_on_from_the_finished_ones(folder, models, tmp_path, monkeypatch):
    """Other options make a finished model no longer the same; its chips are still used."""
    compare(models[:2], data=folder / "d.npz", resume=tmp_path, **FEW)
    ran = run_count(monkeypatch)
    more = compare(models[:2], data=folder / "d.npz", resume=tmp_path, **(FEW | {"trials": 30}))
    assert ran == ["a", "b"]
    assert all("resumed: 20 of 30 chips" in model.events[0] for model in more.models)
    fresh = compare(models[:2], data=folder / "d.npz", **(FEW | {"trials": 30}))
    assert [m.kpp for m in more.models] == [m.kpp for m in fresh.models]


def test_a_changed_model_is_not_taken_for_the_finished_one(folder, models, tmp_path):
    """The folder of a run knows the model by its contents."""
    changed = tmp_path / "m.onnx"
    shutil.copy(models[0], changed)
    kept = tmp_path / "kept"
    compare([changed, models[1]], data=folder / "d.npz", resume=kept, **FEW)
    shutil.copy(models[2], changed)
    with pytest.raises(OptionError, match="its chips are of another run"):
        compare([changed, models[1]], data=folder / "d.npz", resume=kept, **FEW)


def test_a_broken_report_in_the_folder_is_made_again(folder, models, tmp_path):
    """Only a whole report of the same run counts as finished."""
    first = compare(models[:2], data=folder / "d.npz", resume=tmp_path, **FEW)
    for path in tmp_path.glob("*/report.json"):
        path.write_text("{", encoding="utf-8")
    again = compare(models[:2], data=folder / "d.npz", resume=tmp_path, **FEW)
    assert [m.kpp for m in again.models] == [m.kpp for m in first.models]
    for path in tmp_path.glob("*/report.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["schema_version"] == 1


def test_a_gate_draws_all_chips(folder, models):
    """A gate that stopped early would give each model another number of chips."""
    found = compare(models, data=folder / "d.npz", min_kpp=0.5, rank_by="size", percentiles=(20.0,), **FEW)
    assert {model.trials for model in found.models} == {20}
    assert {model.run["all_trials"] for model in found.models} == {True}
    assert found.verdict in ("pass", "fail", "undecided")


def test_roughness(folder, models, monkeypatch):
    """Unless it is left out, every model has its roughness, and ranks by it."""

    def coarse(session, *_):  # a smaller grid than the default, which takes a thousand points
        return landscape(session.spec.model, session.spec.data, grid=3, pairs=2, images=8)

    monkeypatch.setattr(auditing, "session_landscape", coarse)
    options = FEW | {"roughness": True, "trials": 2}
    found = compare(models[:2], data=folder / "d.npz", rank_by="roughness", **options)
    values = [model.roughness.value for model in found.models]
    assert 0 < values[0] < values[1]
    assert all(model.roughness.standard_error > 0 for model in found.models)
    assert [c.models for c in found.correlations] == [2, 2]
    assert all("2 models say little" in c.remark for c in found.correlations if c.value is not None)


def test_progress_names_the_model(folder, models):
    """And says how many there are."""
    told = []
    compare(models[:2], data=folder / "d.npz", progress=lambda what, *_: told.append(what), **FEW)
    assert "reading models and data" in told
    assert any(what.startswith("a (1 of 2): chips") for what in told)
    assert any(what.startswith("b (2 of 2): chips") for what in told)


def test_names(tmp_path):
    """By the stem where the stems differ, else as given."""
    paths = [Path("x/a.onnx"), Path("y/a.onnx"), Path("b.onnx")]
    assert candidates.name_files(paths) == ("x/a.onnx", "y/a.onnx", "b")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["a.onnx"], {}, "needs two models or more, got 1"),
        (["a.onnx", "./a.onnx"], {}, "given twice"),
        (["a.onnx", "b.onnx"], {"rank_by": "beauty"}, "--rank: got 'beauty'; use one of kpp, mean"),
        (["a.onnx", "b.onnx"], {"baseline": "z"}, "--baseline: 'z' is none of the models; use one of a, b"),
        (["a.onnx", "b.onnx"], {"data": {"z": "d.npz"}}, "--data-for: 'z' is none of the models"),
        (["a.onnx", "b.onnx"], {"rank_by": "yield"}, "--rank yield: there is no threshold"),
        (
            ["a.onnx", "b.onnx"],
            {"rank_by": "roughness", "roughness": False},
            "--rank roughness and --no-roug",
        ),
        (["a.onnx", "b.onnx"], {"sigmas": (0.1, 0.2)}, "models are compared at one operating point"),
        (["a.onnx", "b.onnx"], {"trials": 0}, "--trials: got 0"),
        (["a.onnx", "b.onnx"], {"nonsense": 1}, "nonsense: there is no such option"),
    ],
)
def test_wrong_options(folder, monkeypatch, arguments, options, message):
    """Are refused before anything is read."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(comparing, "prepare", lambda *_: pytest.fail("a model was read"))
    with pytest.raises(OptionError, match=message):
        compare(arguments, **({"data": "d.npz"} | options))
