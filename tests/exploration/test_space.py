"""Design spaces: axes from options and files, combinations, and what is said of wrong ones."""

import json

import pytest

from nvaudit.device import load_profile
from nvaudit.errors import OptionError
from nvaudit.exploration.space import read_baseline, read_space, settle_space
from nvaudit.exploration.spec import SpaceOptions
from nvaudit.spec import RunSpec

RRAM = load_profile("rram_65nm")


def test_without_anything():
    """Three sizes, the bits per cell of the profile, ADCs of 4 to 8 bits; all else is the profile's."""
    space = settle_space({}, None, RRAM)
    assert dict(space.axes) == {
        "crossbar": ((64, 64), (128, 128), (256, 256)),
        "cell_bits": (1, 2, 3, 4),
        "adc_bits": (4, 5, 6, 7, 8),
        "code": ("slices",),
    }
    assert space.size == len(list(space.combinations())) == 60
    first, second = list(space.combinations())[:2]
    assert first == {"crossbar": (64, 64), "cell_bits": 1, "adc_bits": 4, "code": "slices"}
    assert second == first | {"adc_bits": 5}
    assert space.label(first) == "crossbar=64x64 cell_bits=1 adc_bits=4"


def test_options_replace_the_keys_of_a_file(tmp_path):
    """TOML and JSON say the same; values may be single, lists, or texts as on the command line."""
    toml = tmp_path / "space.toml"
    toml.write_text('crossbar = "64x64"\nadc_bits = ["4:5", 8]\nencoding = ["offset", "differential"]\n')
    same = tmp_path / "space.json"
    same.write_text(
        json.dumps({"crossbar": [[64, 64]], "adc_bits": [4, 5, 8], "encoding": "offset,differential"})
    )
    assert read_space(toml) == read_space(same)
    space = settle_space({"adc_bits": (6,)}, toml, RRAM)
    assert space.axes["adc_bits"] == (6,)
    assert space.axes["encoding"] == ("offset", "differential")
    assert space.varied == ("cell_bits", "encoding")


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("a.toml", "adc_bit = 4", "adc_bit: there is no such option; did you mean adc_bits"),
        ("a.toml", 'adc_bits = "4:x"', "adc_bits: got '4:x'; use whole numbers from 2 to 16"),
        ("a.toml", "adc_bits = [4, 1]", "adc_bits: got 1; use whole numbers"),
        ("a.toml", "adc_bits = []", "adc_bits: got []; give at least one value"),
        ("a.toml", "remap = true", 'remap: got true; use "no", "yes", one or several in a list'),
        (
            "a.toml",
            'write_verify = "x"',
            "write_verify: got 'x'; use numbers, 0 or more, and none, one",
        ),
        ("a.json", '{"crossbar": null}', "crossbar: got null; use sizes such as"),
        (
            "a.json",
            '{"crossbar": "64x64", "crossbar": "128x128"}',
            "a.json: cannot be read: crossbar is given twice",
        ),
        ("a.toml", "adc_bits = ", "cannot be read: Invalid value"),
        ("a.json", "[1]", "is a list or a value"),
        ("a.json", "{", "cannot be read"),
        ("a.yaml", "adc_bits: 4", "neither .toml nor .json"),
        ("a.toml", b"\xff", "cannot be read: 'utf-8'"),
        ("a.toml", "[adc_bits]\nx = 1", 'adc_bits: got {"x": 1}; use whole numbers'),
    ],
)
def test_bad_files(tmp_path, name, text, wanted):
    """The message has the file, the key, what was found and what to do."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(OptionError) as caught:
        read_space(path)
    assert str(path) in str(caught.value)
    assert wanted in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    """It is named."""
    with pytest.raises(OptionError, match=r"missing\.toml: cannot be read: No such file"):
        read_space(tmp_path / "missing.toml")


def test_too_many_points():
    """The axes with their lengths are named."""
    axes = {name: tuple(range(2, 15)) for name in ("adc_bits", "dac_bits", "bits")}
    with pytest.raises(OptionError, match=r"105,456 points \(.*13 adc_bits"):
        settle_space(axes | {"crossbar": tuple((i, i) for i in range(1, 13))}, None, RRAM)


def test_baselines():
    """Axes that are not named have their first value; unknown ones and several values are refused."""
    space = settle_space({}, None, RRAM)
    assert read_baseline("crossbar=256x256, adc_bits=5", space) == {
        "crossbar": (256, 256), "cell_bits": 1, "adc_bits": 5, "code": "slices",
    }  # fmt: skip
    for text, wanted in (
        ("adc=5", "AXIS=VALUE"),
        ("adc_bits", "AXIS=VALUE"),
        ("adc_bits=4:5", "give one value"),
    ):
        with pytest.raises(OptionError, match=wanted):
            read_baseline(text, space)
    with pytest.raises(OptionError, match=r"^--baseline: adc_bits: got 'foo'; give one value, a whole"):
        read_baseline("crossbar=256x256,adc_bits=foo", space)


def test_axes_are_options_of_an_audit():
    """Each axis has the name of the option that it sets; only hardening comes before an audit."""
    assert set(SpaceOptions.model_fields) - set(RunSpec.model_fields) == {"remap"}
