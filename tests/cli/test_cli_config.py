"""The configuration file: where it is found, what it sets, how it is refused, and how it is shown."""

import json
from pathlib import Path

import pytest

from nvaudit.cli.config import file_schema_text
from nvaudit.cli.config_file import find_config, read_config
from nvaudit.cli.configured import configured_commands, options_by_key
from nvaudit.cli.options import FieldOption
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_OK, OptionError

SCHEMA = Path(__file__).parents[2] / "nvaudit" / "cli" / "nvaudit-toml.schema.json"
FAST = ("--limit", "20", "-j", "0", "-q", "--no-roughness")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working folder that is the top of a repository."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def audited(command, example, *more) -> dict:
    """The options that an audit ran with."""
    ran = command("audit", example, *FAST, *more, "--json")
    assert ran.code == EXIT_OK, ran.err
    return json.loads(ran.out)["run"]


def test_defaults_of_commands(command, example, folder):
    """What the file sets holds where nothing is typed; a command's own table wins; it is said."""
    Path("nvaudit.toml").write_text(
        'trials = 7\nseed = 3\nsigma = [0.1, "0.2:0.3:0.1"]\nroughness = false\n[audit]\ntrials = 9\n',
        encoding="utf-8",
    )
    run = audited(command, example)
    assert (run["trials"], run["seed"], run["sigmas"]) == (9, 3, [0.1, 0.2, 0.3])
    assert audited(command, example, "-n", 5, "--sigma", "0.2")["trials"] == 5
    ran = command("audit", example, *FAST, "--seed", 1)
    assert "nvaudit: from nvaudit.toml: sigma, trials" in ran.err
    assert "seed" not in ran.err
    assert audited(command, example, "--config", "off", "-n", 4)["seed"] == 0


def test_paths_are_relative_to_the_file(command, example, folder, monkeypatch):
    """A file above the working folder names its data and profiles from where it lies."""
    data = example.with_suffix(".npz").read_bytes()
    (folder / "data").mkdir()
    (folder / "data" / "d.npz").write_bytes(data)
    (folder / "pyproject.toml").write_text(
        '[tool.nvaudit]\ndata = "data/d.npz"\ntrials = 5\n', encoding="utf-8"
    )
    (folder / "sub" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(folder / "sub" / "deeper")
    assert Path(audited(command, example)["data"]) == Path("../../data/d.npz")


def test_where_it_is_found(folder):
    """The nearest one; nvaudit.toml before pyproject.toml; a pyproject.toml without our table is none."""
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    (folder / "pyproject.toml").write_text("[tool.nvaudit]\n", encoding="utf-8")
    (folder / "a" / "pyproject.toml").write_text("[tool.other]\nnvaudit = 1\n", encoding="utf-8")
    assert find_config(below) == Path("pyproject.toml")
    (folder / "nvaudit.toml").write_text("", encoding="utf-8")
    assert find_config(below) == Path("nvaudit.toml")


def test_not_above_the_repository(tmp_path):
    """What lies above the top of a repository is someone else's."""
    (tmp_path / "nvaudit.toml").write_text("trials = 1\n", encoding="utf-8")
    top = tmp_path / "repository"
    (top / ".git").mkdir(parents=True)
    assert find_config(top) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trails = 5\n", "nvaudit.toml, line 1: trails: there is no such key; did you mean trials?"),
        ("\n\ntrials = 0\n", "nvaudit.toml, line 3: trials: got 0; use a whole number from 1 to 100000000"),
        ("trials = [1, 2]\n", "nvaudit.toml, line 1: trials: got a list; give one value"),
        ('roughness = "no"\n', 'nvaudit.toml, line 1: roughness: got "no"; use true or false'),
        ("[audit]\nmin-kpp = 0.9\nrank = 1\n", "nvaudit.toml, line 3: rank: there is no such key in [audit]"),
        ('encoding = "ofset"\n', "nvaudit.toml, line 1: encoding: got 'ofset'; use one of sign_magnitude"),
        ("[check]\nmodels = 5\n", "nvaudit.toml, line 2: models: got 5; give a list"),
        (
            'check = "mapping"\n',
            "nvaudit.toml, line 1: check: is the table of `nvaudit check`; write [check] with its options",
        ),
        ('[map]\ncheck = "m"\n', "nvaudit.toml, line 2: check: there is no such key in [map]"),
        ("trials = \n", "nvaudit.toml: is no TOML: Invalid value (at line 1, column 10)"),
        (
            '[check]\nmodels = ["m.onnx"]\n[[check.devices]]\nprofile = "rram"\nsgima = 1\n',
            "nvaudit.toml, line 5: sgima: there is no such key in [check.devices.0]; did you mean sigma?",
        ),
    ],
)  # fmt: skip
def test_refused(command, folder, text, said):
    """What is wrong is named with the file, the line, what was found, and what may stand there."""
    Path("nvaudit.toml").write_text(text, encoding="utf-8")
    ran = command("config")
    assert ran.code == EXIT_BAD_INPUT
    assert said in ran.err


def test_every_command_refuses_a_wrong_file(command, example, folder):
    """A key that means nothing is refused by a command that would not have read it, too."""
    Path("nvaudit.toml").write_text("[compare]\nrnak = 'kpp'\n", encoding="utf-8")
    ran = command("audit", example, *FAST, "-n", 5)
    assert ran.code == EXIT_BAD_INPUT
    assert "line 2: rnak" in ran.err


def test_shown(command, folder, monkeypatch):
    """`nvaudit config` says which value comes from which line, or else from where."""
    Path("nvaudit.toml").write_text("trials = 7\n[compare]\nrank = 'size'\n", encoding="utf-8")
    found = json.loads(command("config", "compare", "--json").out)
    source = {row["option"]: (row["value"], row["source"]) for row in found["options"]}
    assert source["trials"] == ("7", "nvaudit.toml, line 1")
    assert source["rank"] == ("size", "nvaudit.toml, line 3")
    assert source["cache"] == ("off", "$NVAUDIT_CACHE")
    assert source["confidence"] == ("0.95", "default")
    every = command("config")
    assert "nvaudit compare" in every.out
    assert "confidence" not in every.out, "what nobody has set is not listed without a command"
    assert "No configuration file" in command("config", "--config", "off").out


def test_audits_are_shown(command, example, folder):
    """The audits of the matrix stand in `nvaudit config`, which has checked them."""
    Path("nvaudit.toml").write_text(
        f'[check]\nmodels = ["{example}"]\ndevices = ["rram", "pcm"]\n'
        'conditions = [{name = "fresh"}, {name = "old", time = "1h"}]\n'
        '[[check.exceptions]]\ndevice = "rram"\ncondition = "old"\nskip = true\n',
        encoding="utf-8",
    )
    found = json.loads(command("config", "--json").out)
    name = example.stem
    assert found["audits"] == [f"{name} / rram / fresh", f"{name} / pcm / fresh", f"{name} / pcm / old"]
    assert found["skipped"] == [f"{name} / rram / old"]
    assert f"Left out by skip = true: {name} / rram / old." in " ".join(command("config").out.split())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[check.exceptions]]\ndevice = "nosuch"\n', "line 6: exceptions: device 'nosuch' is none of rram"),
        ('[[check.conditions]]\nname = "a"\n[[check.conditions]]\nname = "a"\n',
         "line 7: conditions: 'a' is given twice"),
        ('[[check.conditions]]\nname = "a"\ntime = "1h"\n', "line 5: m / rram / a: time: 3600 s: "),
        ('[[check.conditions]]\nname = "a"\ndata = "gone.npz"\n', "line 5: gone.npz: no such file"),
        ('[[check.conditions]]\nname = "a"\n[[check.conditions]]\nname = "b"\nlabels = "gone.csv"\n',
         "line 7: gone.csv: no such file"),
    ],
)  # fmt: skip
def test_lines_of_the_matrix(command, example, folder, text, said):
    """What is wrong with an audit of the matrix is named with the line that makes it so."""
    Path("nvaudit.toml").write_text(
        f'[check]\nlimit = 20\nmodels = [{{path = "{example}", name = "m"}}]\ndevices = ["rram"]\n{text}',
        encoding="utf-8",
    )
    ran = command("config")
    assert ran.code == EXIT_BAD_INPUT
    assert f"nvaudit.toml, {said}" in ran.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[check]\nmodels = ["gone.onnx"]\n', "line 2: gone.onnx: no such file"),
        ('\n[check]\nmodels = ["M"]\ndevices = ["rram",\n"nosuch"]\n', "line 4: M / nosuch: device:"),
        ('\ndata = "gone.npz"\n', "line 2: gone.npz: no such file"),
        ('data = "gone.npz"\n[check]\nmodels = ["M"]\n', "line 1: gone.npz: no such file"),
        ('[audit]\ndevice = ["rram", "nosuch"]\n', "line 2: device: 'nosuch' is not a bundled profile"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("asked", ["config", "check"])
def test_files_that_are_not_there(command, example, folder, asked, text, said):
    """`nvaudit config` finds models, data and profiles missing, with the line, as `nvaudit check` does."""
    (folder / "M").write_bytes(example.read_bytes())
    Path("nvaudit.toml").write_text(text, encoding="utf-8")
    ran = command(asked)
    assert ran.code == EXIT_BAD_INPUT
    if asked == "config" or "models" in text:
        assert f"nvaudit.toml, {said}" in ran.err


def test_options_of_the_file_are_counted(command, folder, monkeypatch):
    """Each line counts once, however many commands take it; the environment is not the file."""
    Path("nvaudit.toml").write_text("", encoding="utf-8")
    monkeypatch.setenv("NVAUDIT_CACHE", "off")
    assert command("config").out.startswith("nvaudit.toml: 0 options, 0 audits")
    Path("nvaudit.toml").write_text("trials = 7\nseed = 3\n[audit]\ntrials = 9\n", encoding="utf-8")
    assert command("config").out.startswith("nvaudit.toml: 3 options, 0 audits")


def test_lines_of_long_values(folder):
    """Strings and lists over several lines hide what looks like keys in them."""
    Path("nvaudit.toml").write_text(
        'a = """\nb = 1\n[c]\n"""\nd = [\n  {x = 1},\n]\n[[t]]\nk = 1\n[[t]]\nk = 2\n[t.u]\nv = 1\n',
        encoding="utf-8",
    )
    file = read_config(Path("nvaudit.toml"))
    assert file.lines == {
        ("a",): 1, ("d",): 5, ("t", 0): 8, ("t", 0, "k"): 9, ("t", 1): 10, ("t", 1, "k"): 11,
        ("t", 1, "u"): 12, ("t", 1, "u", "v"): 13,
    }  # fmt: skip
    assert file.where("d", 0, "x") == "nvaudit.toml, line 5"


def test_no_table(folder):
    """A pyproject.toml that is named must have the table."""
    Path("pyproject.toml").write_text("[tool.black]\n", encoding="utf-8")
    with pytest.raises(OptionError, match=r"has no table \[tool.nvaudit\]"):
        read_config(Path("pyproject.toml"))


def test_schema_is_current():
    """The committed schema is that of the declarations; `make schema` writes it anew."""
    assert SCHEMA.read_text(encoding="utf-8") == file_schema_text()


def test_schema_knows_every_option():
    """Every option of an audit may stand at the top, for the command, in the matrix and on each axis."""
    schema = json.loads(file_schema_text())
    commands = dict(configured_commands())
    keys = options_by_key(commands["audit",])
    assert keys.keys() <= schema["properties"].keys()
    assert keys.keys() == schema["properties"]["audit"]["properties"].keys()
    matrix = schema["properties"]["check"]["properties"]
    fields = {key for key, option in keys.items() if isinstance(option, FieldOption) and key != "device"}
    assert fields <= matrix.keys()
    for axis in ("models", "devices", "conditions", "exceptions"):
        entry = matrix[axis]["items"]
        assert fields <= (entry if "properties" in entry else entry["anyOf"][1])["properties"].keys()
