"""`assert_kpp` in a user's test suite, with pytest and without."""

import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import pytest

import nvaudit.pytest_plugin
from nvaudit.errors import OptionError
from nvaudit.report.result import from_json
from nvaudit.testing import REPORTS, assert_kpp

ROOT = Path(__file__).parents[1]
FEW = {"sigma": 0.4, "limit": 8}
HEAVY = "{'numpy', 'scipy', 'onnx', 'onnx_ir', 'onnxruntime', 'pydantic', 'rich', 'click', 'plotly', 'torch'}"


@pytest.fixture(autouse=True)
def no_reports(monkeypatch):
    monkeypatch.delenv(REPORTS, raising=False)


@pytest.fixture
def suite(tmp_path, example):
    """A user's project; called with a test module and options it runs pytest there, as a user does."""

    def run(code: str, *options: str, warnings: str = "error") -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_user.py").write_text(textwrap.dedent(code), encoding="utf-8")
        (tmp_path / "pytest.ini").write_text(
            f"[pytest]\nfilterwarnings = {warnings}\naddopts = --strict-config\n"
        )
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
        variables = {**os.environ, "MODEL": str(example), "COLUMNS": "100"}
        variables.pop("PYTEST_ADDOPTS", None)
        return subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)

    return run


def refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(OptionError) as error:
        assert_kpp(*arguments, **options)
    return str(error.value)


def test_it_passes_where_the_gate_passes(example):
    """The report comes back, for further assertions; the chips are those of the command line."""
    report = assert_kpp(example, device="fefet1", at_least=0.2, limit=8)
    assert report.verdict == "pass"
    assert report.gate[0].threshold == 0.2
    assert report.trials.count == 320  # blocks of chips; 307 are the fewest that can pass
    assert report.run["data"] is None
    assert report.roughness is None


def test_it_fails_with_the_numbers(example):
    """The message says what was asked and found, on which model and device, and how to run it alone."""
    with pytest.raises(AssertionError) as error:
        assert_kpp(example, device="fefet1", at_least=1.0, **FEW)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{example} on fefet1"
    assert lines[1] == "KPP 1 % of top1 at least 100 %, sigma 0.4 level spacings"
    assert lines[2].startswith("  FAIL: at most 1 % of chips may be below 100 % (95 % confidence): ")
    assert re.fullmatch(r"  KPP 1 % [\d.]+ % \[no bound, [\d.]+ %\], 95 % confidence, 16 chips", lines[3])
    assert lines[-1].startswith(f"run it alone: nvaudit audit {example} --device fefet1 ")
    assert "--min-kpp 1 " in lines[-1]


def test_undecided_fails_and_says_what_would_decide(example):
    """Too few chips are no pass."""
    with pytest.raises(AssertionError, match="UNDECIDED: at most 1 % of chips") as error:
        assert_kpp(example, at_least=0.2, trials=5, limit=8)
    assert "302 more chips without a failure would pass" in str(error.value)


def test_every_percentile_and_sigma_must_hold(example):
    """Of a sweep and several percentiles only what does not hold is told."""
    with pytest.raises(AssertionError) as error:
        assert_kpp(example, at_least=0.99, sigma=(0, 0.4), percentile=(20, 50), limit=8)
    told = [line for line in str(error.value).splitlines() if line.startswith("KPP")]
    assert told
    assert all(line.endswith("sigma 0.4 level spacings") for line in told)


def test_a_loss_has_an_upper_threshold(example):
    """`at_most` for a loss; the wrong side is refused with the right one."""
    loss = {"metric": "cross_entropy", "percentile": 50, "limit": 8}
    assert assert_kpp(example, at_most=50, **loss).verdict == "pass"
    message = "of cross_entropy lower is better; give the threshold as at_most="
    assert message in refusal(example, at_least=0.1, **loss)
    assert "of top1 higher is better; give the threshold as at_least=" in refusal(
        example, at_most=1, percentile=50, limit=8
    )


def test_time_in_words(example):
    """A time may be given as on the command line."""
    report = assert_kpp(example, device="pcm", at_least=0.0, time="1h", percentile=50, limit=8)
    assert report.operating_point.time_s == 3600


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at_least": 90}, "at_least=90: accuracies are 0 to 1; for 90 % write 0.9"),
        ({"at_least": 97.5, "metric": "top5"}, "for 97.5 % write 0.975"),
        ({"at_least": 900}, "at_least=900: accuracies are 0 to 1"),
        ({"at_least": -0.1}, "at_least=-0.1: accuracies are 0 to 1"),
        ({}, "give a threshold, either at_least= or, for a loss, at_most="),
        ({"at_least": 0.9, "at_most": 0.9}, "give a threshold, either"),
        ({"at_least": 0.9, "min_kpp": 0.9}, "min_kpp= is called at_least= here"),
        ({"at_least": 0.9, "sigmas": (0.1,)}, "sigmas= is called sigma= here"),
        ({"at_least": 0.9, "trails": 5}, "trails: there is no such option; did you mean trials?"),
        ({"at_least": float("nan"), "metric": "mse"}, "--min-kpp: got nan; use a finite number"),
        ({"at_least": 0.9, "time": "soon"}, "--time 'soon' is not a time"),
    ],
)
def test_mistakes_are_refused_with_a_hint(example, options, message):
    """A percentage, no threshold, a mistyped option: refused before anything runs."""
    assert message in refusal(example, **options)


def test_without_labels_it_is_no_accuracy(unlabelled, tmp_path):
    """A test cannot pass by agreement on random inputs, unless it asks for that."""
    message = refusal(unlabelled, at_least=0.0, percentile=50, limit=8)
    assert "no labels: nothing is known about accuracy" in message
    assert 'or metric="agreement" to compare with the unperturbed model' in message
    report = assert_kpp(unlabelled, at_least=0.0, percentile=50, limit=8, metric="agreement")
    assert report.label_free


def test_control_characters_in_names_are_shown(example, tmp_path):
    """A message cannot act on a terminal."""
    name = tmp_path / "a\x1b[2J.onnx"
    name.write_bytes(example.read_bytes())
    with np.load(example.with_suffix(".npz")) as data:
        np.savez(tmp_path / "d.npz", **{key: data[key][:8] for key in data.files})
    with pytest.raises(AssertionError) as error:
        assert_kpp(name, data=tmp_path / "d.npz", at_least=1.0, sigma=0.4)
    assert "\x1b" not in str(error.value)
    assert r"a\x1b[2J.onnx" in str(error.value)


def test_reports_are_kept_where_the_environment_says(example, tmp_path, monkeypatch):
    """One file for each specification, also of tests that fail; the same one is written over."""
    monkeypatch.setenv(REPORTS, str(tmp_path / "new" / "folder"))
    assert_kpp(example, at_least=0.2, limit=8)
    with pytest.raises(AssertionError) as error:
        assert_kpp(example, at_least=1.0, **FEW)
    with pytest.raises(AssertionError):
        assert_kpp(example, at_least=1.0, **FEW, workers=1)
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert len(files) == 2
    for path in files:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+-[0-9a-f]{8}\.json", path.name)
        assert "test_reports_are_kept_where_the_environment_says" in path.name
    verdicts = {from_json(path.read_text(encoding="utf-8"), str(path)).verdict for path in files}
    assert verdicts == {"pass", "fail"}
    assert f"report: {files[0]}" in str(error.value) or f"report: {files[1]}" in str(error.value)


def test_the_plugin_is_registered():
    """The wheel names the plugin, and this environment has it."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert named == {"pytest11": {"nvaudit": nvaudit.pytest_plugin.__name__}}


def test_a_users_suite(suite, tmp_path):
    """Function and fixture pass and fail as a user expects, with warnings as errors; reports are kept."""
    done = suite(
        """
        import os
        from nvaudit.testing import assert_kpp as check

        MODEL = os.environ["MODEL"]

        def test_function():
            check(MODEL, device="fefet1", at_least=0.2, limit=8)

        def test_fixture(assert_kpp):
            assert assert_kpp(MODEL, device="fefet1", at_least=0.2, limit=8).verdict == "pass"

        def test_bad(assert_kpp):
            assert_kpp(MODEL, device="fefet1", at_least=1.0, sigma=0.4, limit=8)
        """,
        "--nvaudit-report=out/reports",
        "--junit-xml=junit.xml",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 2 passed" in done.stdout
    assert re.search(
        "^E +KPP 1 % of top1 at least 100 %, sigma 0.4 level spacings$", done.stdout, re.MULTILINE
    )
    assert "nvaudit/testing.py" not in done.stdout  # the traceback ends at the user's line
    assert '>       assert_kpp(MODEL, device="fefet1", at_least=1.0, sigma=0.4, limit=8)' in done.stdout
    reports = list((tmp_path / "out" / "reports").iterdir())
    assert sorted(re.sub("-.*", "", path.name) for path in reports) == [
        f"test_user.py_test_{name}" for name in ("bad", "fixture", "function")
    ]
    verdicts = {json.loads(path.read_text(encoding="utf-8"))["verdict"] for path in reports}
    assert verdicts == {"pass", "fail"}
    assert 'name="nvaudit_kpp_1"' in (tmp_path / "junit.xml").read_text(encoding="utf-8")


def test_nothing_is_loaded_where_it_is_not_used(suite):
    """In a project that does not use it, the plugin is there and has imported nothing but itself."""
    done = suite(
        f"""
        import sys

        def test_light(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("nvaudit")
            assert not {HEAVY} & set(sys.modules)
            ours = {{name for name in sys.modules if name.partition(".")[0] == "nvaudit"}}
            assert ours == {{"nvaudit", "nvaudit._version", "nvaudit.pytest_plugin"}}
        """
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_report_folder_is_checked(suite, tmp_path):
    """A folder that cannot be made is a usage error, before any test."""
    (tmp_path / "file").touch()
    done = suite("def test_a(): pass", "--nvaudit-report=file")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--nvaudit-report file: cannot be made: File exists" in done.stderr


def test_the_environment_is_left_as_it_was(suite):
    """The option is no longer in the environment after the run."""
    (done,) = [
        suite(
            f"""
            import os, pytest

            def test_inner(tmp_path):
                (tmp_path / "test_inner.py").write_text("def test_a(): pass")
                before = os.environ["{REPORTS}"]
                assert before.endswith("outer")
                options = ["-q", "-p", "no:cacheprovider", "--nvaudit-report=inner"]
                assert pytest.main([str(tmp_path), *options]) == 0
                assert os.environ["{REPORTS}"] == before
            """,
            "--nvaudit-report=outer",
            warnings="default",
        )
    ]
    assert done.returncode == 0, done.stdout + done.stderr
