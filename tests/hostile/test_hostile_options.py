"""Options that make no sense: each ends with exit code 2, its own message, and nothing written."""

import pytest

from nvaudit.errors import EXIT_BAD_INPUT

FEW = ("-n", 2, "-j", 0, "--limit", 8)

RRAM_RANGE = (
    "is outside the valid range 0 … 0.4 of profile 'rram' (sigma_d from 0 to 0.4 level spacings, what "
    "write-verify achieves, section IV-A of the paper); choose one inside it, in unit 'level'"
)
WEIGHTS = "`nvaudit inspect` lists them, e.g. conv1.weight, conv2.weight, fc1.weight, fc2.weight"

MESSAGES = [
    (
        ("--device", "ram"),
        "device: 'ram' is not a bundled profile; did you mean rram? See `nvaudit devices list`, or give the "
        "path of a .json file",
    ),
    (("--sigma", "3"), f"sigma: 3 {RRAM_RANGE}"),
    (("--sigma", "-0.1"), f"sigma: -0.1 {RRAM_RANGE}"),
    (("--sigma", "0:0.5:0.1"), f"sigma: 0.5 {RRAM_RANGE}"),
    (
        ("--device", "rram_65nm", "--sigma", "0.2", "--sigma-unit", "level"),
        "sigma-unit: 'level' does not fit profile 'rram_65nm'; use one of log",
    ),
    (
        ("--sigma-unit", "weight_max"),
        "sigma-unit: 'weight_max' without a sigma: the default of profile 'rram' is in 'level'; give the "
        "sigma too",
    ),
    (("--time", "1d"), "time: 86400 s: profile 'rram' does not change with time; leave it out"),
    (("--enable", "zz"), "noise term: 'zz' is not in profile 'rram'; its terms are programming"),
    (
        ("--device", "rram_65nm", "--enable", "aging", "--disable", "aging"),
        "noise term: 'aging' is both enabled and disabled; choose one",
    ),
    (
        ("--metric", "top3x"),
        "--metric 'top3x' is unknown; use top1, topK (e.g. top5), cross_entropy, mse, agreement, "
        "multilabel, f1, f1_micro, miou, perplexity, cer, wer, map, map50, or module:function",
    ),
    (("--metric", "top10"), "--metric top10: the output has only 10 classes on axis 1"),
    (("--output-name", "nope"), "--output-name 'nope' is not an output; the model has logits"),
    (("--class-axis", "7"), "--class-axis 7: the output has shape [8, 10] (axis 0 is the batch)"),
    (("--class-axis", "0"), "--class-axis 0: the output has shape [8, 10] (axis 0 is the batch)"),
    (("--class-axis", "99"), "--class-axis: got 99; use a whole number from -64 to 63"),
    (("--layers", "zz*"), f"--layers 'zz*' matches no weight; {WEIGHTS}"),
    (("--digital", ""), f"--digital '' matches no weight; {WEIGHTS}"),
    (("--confidence", "2"), "--confidence: got 2.0; use a number above 0.5 and below 1"),
    (("--confidence", "nan"), "--confidence: got nan; use a number above 0.5 and below 1"),
    (("-k", "0"), "--percentile: got 0.0; use 1 to 100 numbers above 0 and below 100"),
    (("-k", "1", "-k", "100"), "--percentile: got 100.0; use 1 to 100 numbers above 0 and below 100"),
    (("--min-kpp", "nan"), "--min-kpp: got nan; use a finite number"),
    (("--min-kpp", "95"), "--min-kpp 95: top1 is a fraction from 0 to 1; for 95 % write 0.95"),
    (("--yield-at", "inf"), "--yield-at: got inf; use at most 100 finite numbers"),
    (("--yield-at", "-1"), "--yield-at -1: top1 is a fraction from 0 to 1"),
    (
        ("--seed", "99999999999999999999"),
        "--seed: got 99999999999999999999; use a whole number from 0 to 9223372036854775807",
    ),
    (("-n", "999999999999"), "--trials: got 999999999999; use a whole number from 1 to 100000000"),
]

UNREADABLE = [
    (("--trials", "0"), "--trials: got 0; use a whole number from 1 to 100000000"),
    (("--trials", "x"), "--trials: got 'x'; use a whole number from 1 to 100000000"),
    (("--trials", "1.5"), "--trials: got '1.5'; use a whole number from 1 to 100000000"),
    (("--limit", "0"), "--limit: got 0; use a whole number, 1 or more"),
    (("--bits", "20"), "--bits: got 20; use a whole number from 1 to 14"),
    (("--workers", "-1"), "--workers: got -1; use a whole number from 0 to 4096"),
    (("--scale", "none"), "--scale: got 'none'; use one of per_tensor, per_channel"),
    (
        ("--crossbar", "256"),
        "--crossbar: got '256'; use rows and columns, whole numbers, 1 or more, such as 256x256, or several "
        "between commas",
    ),
    (("--time", "soon"), "--time 'soon' is not a time; write e.g. 90s, 5min, 12h, 1d, 2w, 10y"),
    (("--sigma", "0:1e9:1"), "--sigma '0:1e9:1' has more than 1000 points; take a larger step"),
    (("--sigma", "nan"), "--sigma 'nan' is neither a finite number nor a sweep start:stop:step"),
    (("--data", ""), "--data: got ''; use a path, in UTF-8"),
]

USAGE = [
    (("-o", ""), "Invalid value for '-o' / '--out': it is empty; name a file"),
]


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder for temporary files, empty."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize(("options", "message"), MESSAGES + UNREADABLE)
def test_a_bad_option_has_its_own_message(command, example, scratch, options, message):
    """One line on standard error says what is wrong and what to do; no report, no working files."""
    ran = command("audit", example, *FEW, "-o", "r.json", *options)
    assert ran.err == f"nvaudit: error: {message}\n"
    assert (ran.code, ran.out) == (EXIT_BAD_INPUT, "")
    assert [path.name for path in scratch.parent.rglob("*")] == ["scratch"]


@pytest.mark.parametrize(("options", "message"), USAGE)
def test_a_bad_value_is_usage(command, example, scratch, options, message):
    """What the parser refuses comes with the way to the help."""
    ran = command("audit", example, *FEW, "-o", "r.json", *options)
    assert ran.err.endswith(f"\n\nError: {message}\n")
    assert "Try 'nvaudit audit --help' for help." in ran.err
    assert (ran.code, ran.out) == (EXIT_BAD_INPUT, "")
    assert [path.name for path in scratch.parent.rglob("*")] == ["scratch"]


@pytest.mark.parametrize("metric", ["top1", "top5", "cross_entropy", "loss"])
def test_a_metric_that_needs_labels(command, unlabelled, scratch, metric):
    """Without labels only what compares with the model itself can be measured."""
    ran = command("audit", unlabelled, *FEW, "--metric", metric)
    assert ran.err == (f"nvaudit: error: --metric {metric} needs labels; without them use agreement or mse\n")
    assert (ran.code, ran.out) == (EXIT_BAD_INPUT, "")
    assert list(scratch.iterdir()) == []


def test_names_of_devices_and_terms_never_become_paths(command, example, scratch):
    """A device that looks like a path is looked up as a file."""
    ran = command("audit", example, *FEW, "--device", "../none.json")
    assert ran.code == EXIT_BAD_INPUT
    assert ran.err.startswith("nvaudit: error: ../none.json: ")
