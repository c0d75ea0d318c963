"""Old spellings are taken for one release and say the new one; -o and --output-name mean one thing each."""

import json
import shutil

import click
import pytest
from test_cli_help import COMMANDS

import nvaudit
from nvaudit.cli.options import RenamedOption
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_OK

FEW = ("-n", 4, "-j", 0, "-q", "--limit", 8)
ONE = (*FEW, "--no-roughness")


def options(names):
    """The options of a command by each of their names."""
    found = [one for one in COMMANDS[names].params if isinstance(one, click.Option)]
    return {name: option for option in found for name in option.opts}


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_an_option_means_the_same_everywhere(names):
    """-o is --out, --report is JSON, and the scored output of the graph is --output-name."""
    found = options(names)
    if "-o" in found:
        assert found["-o"] is found["--out"]
    assert not {"--output", "--comparison"} & set(found)
    if "--report" in found:
        assert "as JSON" in found["--report"].help
        assert found["--json"].help.endswith("he same as --report -.")
        assert {"--html", "--markdown", "--csv", "--csv-table"} <= set(found)


def test_the_list_of_old_spellings():
    """Each is a way to write one option, and none of them is the name of another one of its command."""
    old = {
        (" ".join(names), was): max(option.opts, key=len)
        for names, command in COMMANDS.items()
        for option in command.params
        if isinstance(option, RenamedOption)
        for was in option.was
    }
    assert all(was not in options(tuple(names.split())) for names, was in old)
    assert old == {
        ("audit", "--output"): "--output-name",
        ("compare", "--output"): "--output-name",
        ("compare", "--comparison"): "--out",
        ("devices fit", "--output"): "--out",
        ("harden", "--output"): "--out",
        ("landscape", "--output"): "--output-name",
        ("replay", "--output"): "--out",
        ("roofline", "--output"): "--output-name",
        ("verify-plan", "--output"): "--output-name",
        ("verify-plan", "--plan"): "--out",
    }


@pytest.mark.parametrize("spelt", [("--output", "logits"), ("--output=logits",)])
def test_an_old_spelling_does_the_same(command, example, tmp_path, spelt):
    """With a note on standard error; the report has the new name."""
    path = tmp_path / "r.json"
    ran = command("audit", example, *ONE, *spelt, "-o", path)
    assert ran.code == EXIT_OK
    assert "nvaudit: --output is now --output-name; the old spelling goes with the next release" in ran.err
    assert json.loads(path.read_text())["run"]["output_name"] == "logits"
    assert "is now" not in command("audit", example, *ONE, "--output-name", "logits").err


def test_an_old_and_a_new_spelling_are_two(command, example):
    """As everywhere: an option is given once."""
    ran = command("audit", example, *ONE, "--output", "a", "--output-name", "b")
    assert ran.code == EXIT_BAD_INPUT
    assert "--output-name is given 2 times: 'a' and 'b'; give it once" in ran.err


def test_a_required_file_under_its_old_name(command, example, tmp_path):
    """The model of a hardening."""
    words = ("harden", example, "-m", "remap", "-n", 4, "-j", 0, "-q", "--limit", 40)
    ran = command(*words, "--output", tmp_path / "h.onnx")
    assert ran.code == EXIT_OK, ran.err
    assert "nvaudit: --output is now --out" in ran.err
    assert (tmp_path / "h.onnx").is_file()
    missing = command(*words)
    assert (missing.code, "Missing option '-o' / '--out'" in missing.err) == (EXIT_BAD_INPUT, True)


def test_a_surface_under_its_old_name(command, example, tmp_path):
    """-o FILE.npz is still the surface; another -o is the report."""
    few = ("landscape", example, "--grid", 3, "--pairs", 1, "--images", 8, "-j", 0, "-q")
    ran = command(*few, "-o", tmp_path / "s.npz")
    assert ran.code == EXIT_OK
    assert "the surface is now written by --surface" in ran.err
    assert (tmp_path / "s.npz").read_bytes().startswith(b"PK")
    again = command(*few, "-o", tmp_path / "r.json", "--surface", tmp_path / "t.npz")
    assert again.err == ""
    assert json.loads((tmp_path / "r.json").read_text())["surface"]["axis"] == [-0.3, 0.0, 0.3]


def test_keywords_of_the_library(example, tmp_path):
    """output= of audit is output_name=, that of remap out=; both at once are refused."""
    few = {"trials": 2, "limit": 8, "workers": 0}
    with pytest.warns(FutureWarning, match=r"nvaudit.audit\(\): output= is now output_name="):
        found = nvaudit.audit(example, output="logits", roughness=False, **few)
    assert found.run["output_name"] == "logits"
    with pytest.warns(FutureWarning, match=r"nvaudit.remap\(\): output= is now out="):
        nvaudit.remap(example, output=tmp_path / "h.onnx", trials=0, limit=40, output_name="logits")
    assert (tmp_path / "h.onnx").is_file()
    with pytest.raises(TypeError, match="output is the old name of out; give one"):
        nvaudit.remap(example, output="a", out="b")


def test_a_folder_begun_under_the_old_name_goes_on(command, example, tmp_path):
    """What a chip is has not changed: the record knows the scored output by its first name."""
    model = shutil.copy(example, tmp_path / "m.onnx")
    shutil.copy(example.with_suffix(".npz"), tmp_path / "m.npz")
    words = ("--output-name", "logits", "--resume", tmp_path / "kept")
    assert command("audit", model, *ONE, *words).code == EXIT_OK
    record = next((tmp_path / "kept").glob("*chips*")).read_bytes()
    assert b'"--output":"logits"' in record
    assert b"--output-name" not in record
