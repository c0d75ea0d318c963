"""Options as keywords: the command line's names, one value where one is meant, objects for files."""

import inspect

import numpy as np
import onnx
import pytest

import nvaudit
from nvaudit.errors import DataError, ModelError, OptionError
from nvaudit.report.kinds import KINDS

VERBS = (
    "audit",
    "check",
    "compare",
    "estimate_cost",
    "explore",
    "harden",
    "landscape",
    "plan",
    "remap",
    "roofline",
    "verify_plan",
)
FEW = {"trials": 3, "limit": 20, "roughness": False, "suggest": False}


def short_scores(outputs, labels):
    """A metric at the top of a module: one score per sample."""
    return (outputs.argmax(axis=1) == labels).astype(float)


@pytest.mark.parametrize("verb", VERBS)
def test_options_are_in_the_signature_and_in_the_help(verb):
    """Completion and help know every option by its name on the command line, with its default."""
    function = getattr(nvaudit, verb)
    parameters = inspect.signature(function).parameters
    assert parameters["seed"].default == 0
    help_text = inspect.getdoc(function)
    listed = help_text.split("Other Parameters\n----------------\n")[1]
    known = [name for name in parameters if f"\n{name} : " in f"\n{listed}"]
    assert len(known) > 10
    if verb in ("audit", "compare", "roofline"):
        assert {"sigma", "percentile", "time", "trials", "batch_size"} <= set(known)
        assert "sigmas" not in parameters
    assert "workers" not in known or "Worker processes; 0 runs in this one." in listed


def test_the_options_own_names_hold(example):
    """``sigma``, ``percentile``, ``time="1d"``: one value, and as the fields that they are."""
    report = nvaudit.audit(example, "pcm", percentile=10, time="1d", layers="*", **FEW)
    assert (report.run["percentiles"], report.run["time_s"], report.run["layers"]) == ([10.0], 86400.0, ["*"])
    fields = nvaudit.audit(example, "pcm", percentiles=(10,), time_s=86400, layers=("*",), **FEW)
    assert fields.trials.values == report.trials.values


def test_sweeps_are_read_as_typed(example):
    """A range, and an array of numpy."""
    typed = nvaudit.audit(example, "rram", sigma="0.1:0.3:0.1", **FEW)
    array = nvaudit.audit(example, "rram", sigma=np.array([0.1, 0.2, 0.3]), **FEW)
    assert [point.sigma for point in typed.sweep] == pytest.approx([0.1, 0.2, 0.3])
    assert [point.trials.values for point in array.sweep] == [point.trials.values for point in typed.sweep]


def test_wrong_keywords_are_named(example):
    """The same option twice, one that does not exist, text that cannot be read."""
    with pytest.raises(OptionError, match="sigma and sigmas are the same option; give one"):
        nvaudit.audit(example, sigma=0.1, sigmas=(0.2,))
    with pytest.raises(OptionError, match="sgima: there is no such option"):
        nvaudit.audit(example, sgima=0.1)
    with pytest.raises(OptionError, match="--time 'yesterday' is not a time"):
        nvaudit.audit(example, time="yesterday")


def test_objects_stand_for_files(example):
    """A model, arrays and a function give the numbers that files and names give; the report names files."""
    arrays = np.load(example.with_suffix(".npz"))
    data = (arrays["image"], arrays["y"])
    report = nvaudit.audit(onnx.load(example), "fefet1", data, metric=short_scores, **FEW)
    same = nvaudit.audit(example, "fefet1", metric=f"{__name__}:short_scores", **FEW)
    assert report.trials.values == same.trials.values
    assert report.run["model"].endswith(".onnx")
    assert report.run["data"].endswith(".npz")
    named = nvaudit.audit(str(example), "fefet1", {"image": data[0], "y": data[1]}, **FEW)
    assert named.data.count == report.data.count


def test_a_metric_must_be_importable(example, monkeypatch):
    """A lambda is refused, and a function of a notebook where other processes run the chips."""
    with pytest.raises(OptionError, match=r"lambda.* is not at the top of its module"):
        nvaudit.audit(example, metric=lambda outputs, labels: labels)
    import __main__

    monkeypatch.setattr(short_scores, "__module__", "__main__")
    monkeypatch.setattr(__main__, "short_scores", short_scores, raising=False)
    with pytest.raises(OptionError, match="short_scores is defined here, where other processes cannot"):
        nvaudit.audit(example, metric=short_scores, workers=2)
    report = nvaudit.audit(example, metric=short_scores, **FEW)
    assert report.metric == "__main__:short_scores"


def test_rows_of_different_lengths_are_refused(example):
    """Before anything runs, with the name of the array."""
    with pytest.raises(OptionError, match="data: 'x' is no array of numbers"):
        nvaudit.audit(example, data=(np.array([[1], [1, 2]], dtype=object), [0, 1]))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([np.zeros((2, 1, 8, 8)), np.zeros(2)], "a list"),
        (5, "an int"),
        (np.float32(5), "a float32"),
        ((np.zeros(2),) * 3, "a tuple of 3"),
        ({}, "a dict"),
        ({"x": "d.npz", "y": np.zeros(2)}, "a dict"),
    ],
)
def test_data_that_are_no_arrays_are_refused(example, data, said):
    """With what was given and what may be, not with a piece of the numbers."""
    with pytest.raises(OptionError) as caught:
        nvaudit.audit(example, "fefet1", data)
    assert str(caught.value) == f"data: {said}; give a path, X, (X, y), or arrays by name"


def test_lists_that_are_no_array_are_refused(example):
    """Inputs of different lengths are bad input."""
    with pytest.raises(OptionError, match="data: 'x' is no array of numbers: "):
        nvaudit.audit(example, data=([[1.0], [1.0, 2.0]], [0, 1]))


def test_objects_are_named_by_their_keywords(example):
    """Messages do not speak of files that nobody has made."""
    with np.load(example.with_suffix(".npz")) as arrays:
        x, y = arrays["image"], arrays["y"]
    spoilt = x.copy()
    spoilt[3] = np.nan
    for data, said in (
        ((x, y[:5]), "data: the arrays disagree on the number of samples: "),
        (x[:0], "data: no samples: "),
        ((spoilt, y), "data: input 'image': 64 of "),
        ((x, y + 100), "data: labels y: label 109 is out of range"),
        ({"other": x}, "data: no array for input 'image': found 'other'"),
    ):
        with pytest.raises(DataError) as caught:
            nvaudit.audit(example, data=data, **FEW)
        assert str(caught.value).startswith(said)
    model = onnx.load(example)
    model.graph.output[0].name = "elsewhere"
    with pytest.raises(ModelError, match=r"^model: the graph: nothing produces its output 'elsewhere'"):
        nvaudit.audit(model, data=(x, y), **FEW)


def test_a_bar_shows_progress(example, capsys):
    """``progress=True`` draws on standard error, not on standard output; the results are the same."""
    steps = []
    shown = nvaudit.audit(example, progress=True, **FEW)
    captured = capsys.readouterr()
    assert captured.out == ""
    told = nvaudit.audit(example, progress=lambda *step: steps.append(step), **FEW)
    still = nvaudit.audit(example, progress=False, **FEW)
    assert steps
    assert shown.trials.values == told.trials.values == still.trials.values


def test_data_may_be_lists_of_different_lengths(tmp_path):
    """Texts become an array of texts, lists one array with their lengths; others are refused."""
    from nvaudit.keywords import _data_file

    x = np.zeros((2, 3))
    with np.load(_data_file((x, ["a", "bcd"]))) as held:
        assert held["y"].tolist() == ["a", "bcd"]
    with np.load(_data_file((x, [[[1, 2, 3, 4, 0]], []]))) as held:
        assert (held["y"].tolist(), held["y_lengths"].tolist()) == ([[[1, 2, 3, 4, 0]], [[0] * 5]], [1, 0])
    with pytest.raises(OptionError, match="'y' is no array of numbers"):
        _data_file((x, [{"a": 1}, {"b": 2}]))


def test_every_command_that_makes_a_report_is_a_function(example, tmp_path):
    """Each has its options as keywords, and gives the report of the command."""
    others = {"audit --plan": "plan", "cost": "estimate_cost", "verify-plan": "verify_plan",
              "map": "map_model", "harden --method remap": "remap", "devices fit": "fit_device",
              "devices show": "show_device",
              "devices list": "list_devices", "technology show": "show_technology",
              "technology list": "list_technologies"}  # fmt: skip
    commands = {kind.command.removeprefix("nvaudit ") for kind in KINDS} - {"config"}
    assert {others.get(command, command) for command in commands} <= set(dir(nvaudit))
    assert nvaudit.inspect(example, "fefet1", bits=6).run["bits"] == 6
    assert nvaudit.plan(example, trials=50, limit=20).kind == "plan"
    assert nvaudit.show_device("pcm", time="1d").time_s == 86400
    assert len(nvaudit.list_devices().profiles) > 3
    assert nvaudit.list_technologies().technologies
    written = nvaudit.map_model(example, "rram", out=tmp_path / "mapping")
    assert written.kind == "map"
    assert nvaudit.check_mapping(tmp_path / "mapping").check.holds
    chips = tmp_path / "chips"
    nvaudit.map_model(example, "rram", out=chips, simulate=1)
    report = nvaudit.calibrate(example, chips, tmp_path / "chip.onnx", samples=20, limit=60)
    assert report.kind == "calibrate"
    assert (tmp_path / "chip.onnx").is_file()
    table = tmp_path / "table.csv"
    table.write_text("level,mean,std\n0,2,0.1\n1,10,0.4\n2,20,0.5\n3,31,0.6\n")
    shown = nvaudit.fit_table(table, tmp_path / "own.json", unit="us")
    assert (shown.kind, shown.device_name, len(shown.levels)) == ("device", "own", 4)
    with pytest.raises(nvaudit.NvauditError, match="this is the measurements"):
        nvaudit.fit_table(table, table, unit="us")


def test_options_of_another_command_are_refused(example):
    """A function that has some options only does not take the others in silence."""
    with pytest.raises(OptionError, match="trials: inspect has no such option"):
        nvaudit.inspect(example, trials=5)
    assert "trials" not in inspect.signature(nvaudit.inspect).parameters
    assert {"bits", "layers", "crossbar"} <= set(inspect.signature(nvaudit.inspect).parameters)
