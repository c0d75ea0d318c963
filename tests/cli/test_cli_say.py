"""Nothing that comes from a file or the command line acts on a terminal, and long names are cut."""

import json
import os
import pty
import shutil
import sys
import warnings
from pathlib import Path

import onnx
import pytest

from nvaudit.cli.say import PlainConsole, plain, shortened, show_warnings_plainly
from nvaudit.report.jsontext import read_json, write_json

EVIL = "\x1b]0;PWN\x07\x1b[2J\x85\x9b31m\u202e\x7f"
RAW = [text.encode() for text in ("\x1b]0;", "\x1b[2J", "\x85", "\x9b", "\u202e", "\x7f")]
FEW = ("-n", "2", "--limit", "5", "-j", "0", "--no-roughness")


def on_a_terminal(*arguments: object, cwd: Path) -> tuple[int, bytes]:
    """Run a command whose standard streams are a terminal; its exit code and what the terminal got."""
    pid, handle = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execv(sys.executable, [sys.executable, "-m", "nvaudit", *map(str, arguments)])
    seen = b""
    try:
        while piece := os.read(handle, 65536):
            seen += piece
    except OSError:  # Linux says so at the end
        pass
    os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen


@pytest.fixture
def evil(tmp_path, example, monkeypatch):
    """Files with names, and a model with names inside, that a terminal acts on."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    shutil.copy(example, tmp_path / f"{EVIL}.onnx".replace("/", ""))
    shutil.copy(example.with_suffix(".npz"), tmp_path / f"{EVIL}.npz")
    for what in ("op_type", "domain", "attribute"):
        model = onnx.load(example)
        node = next(node for node in model.graph.node if node.attribute)
        if what == "attribute":
            node.attribute[0].name = EVIL
        else:
            setattr(node, what, EVIL)
        onnx.save(model, tmp_path / f"{what}.onnx")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("audit", "op_type.onnx", "--data", f"{EVIL}.npz", *FEW), 2),
        (("audit", "domain.onnx", "--data", f"{EVIL}.npz", *FEW), 2),
        (("audit", "attribute.onnx", "--data", f"{EVIL}.npz", *FEW), 2),
        (("audit", f"{EVIL}.onnx", *FEW, "-o", f"{EVIL}.json"), 0),
        (("audit", f"{EVIL}.onnx", *FEW, "-o", f"nowhere/{EVIL}"), 2),
        (("audit", f"{EVIL}.onnx", *FEW, "--data", f"no{EVIL}"), 2),
        (("audit", f"{EVIL}.onnx", f"--no{EVIL}"), 2),
        (("audit", f"{EVIL}.onnx", "--trials", EVIL), 2),
        (("compare", f"{EVIL}.onnx", "attribute.onnx", "--csv", "-", *FEW), 2),
        (("devices", "show", EVIL), 2),
        ((EVIL,), 2),
        (("inspect", f"{EVIL}.onnx", "--json"), 0),
    ],
)
def test_nothing_raw_reaches_the_terminal(evil, arguments, code):
    """Operators, domains, attributes, names of files and options: shown as escapes."""
    found, seen = on_a_terminal(*arguments, cwd=evil)
    assert found == code, seen
    assert [raw for raw in RAW if raw in seen] == []


def test_json_holds_them_as_escapes_of_its_own():
    """The text has none raw; what is read back is the same."""
    value = {EVIL: [EVIL, "σ ü \N{GRINNING FACE}\u2028\ue000"]}
    text = write_json(value)
    assert text.isprintable() or set(text) - {"\n"} == {c for c in text if c.isprintable()}
    assert "σ ü \N{GRINNING FACE}" in text
    assert read_json(text) == json.loads(text) == value


def test_tables_are_clean(capsys):
    """rich gets text as it is; what reaches the terminal is not."""
    console = PlainConsole(force_terminal=True, color_system="standard", width=80)
    console.print(f"[bold]x[/bold] {EVIL}", highlight=False)
    out = capsys.readouterr().out
    assert "\\x1b[2J" in out
    assert "\x1b[2J" not in out
    assert "\x1b[1mx" in out  # colours are rich's own


def test_warnings_go_the_same_way(capsys, monkeypatch):
    """A warning of a library quotes a file."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    show_warnings_plainly()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        show_warnings_plainly()
        warnings.warn(f"odd {EVIL}", RuntimeWarning, stacklevel=1)
    err = capsys.readouterr().err
    assert "nvaudit: warning: odd \\x1b]0;PWN" in err
    assert "\x1b" not in err


def test_long_names_are_cut_in_the_middle(command):
    """Both ends of a name of 5,000 characters are shown."""
    name = "first-" + 5000 * "x" + "-last"
    ran = command("audit", name)
    assert ran.code == 2
    assert len(ran.err) < 1500
    assert "first-xxx" in ran.err
    assert "xxx-last" in ran.err
    assert plain("two\nlines") == "two\nlines"
    assert len(shortened(" ".join(["word"] * 5000))) <= 4000
