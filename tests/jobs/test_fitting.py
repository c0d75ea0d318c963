"""`devices fit` from arrays: what simulated chips were drawn with is found again, and a misfit is said."""

import json
import shutil

import numpy as np
import pytest

from nvaudit.device import load_profile


def _fit(command, tmp_path, *measured, trials=()):
    report = tmp_path / "fit.json"
    words = ("devices", "fit", tmp_path / "m", *measured, "-o", tmp_path / "my.json", "-q", *trials)
    ran = command(*words, "--report", report)
    assert ran.code in (0, 1), ran.err
    return ran, json.loads(report.read_text()), load_profile(tmp_path / "my.json")


def _chips(command, example, tmp_path, name, *options, chips=2, seed=1, mapped=None):
    mapped = options if mapped is None else mapped
    if not (tmp_path / "m").exists():
        assert command("map", example, *mapped, "--crossbar", "64x64", "-o", tmp_path / "m", "-q").code == 0
    more = ("--simulate", chips, "--seed", seed, "-o", tmp_path / name, "-q")
    ran = command("map", example, *options, "--crossbar", "64x64", *more)
    assert ran.code == 0, ran.err
    return tmp_path / name


def test_levels_components_and_stuck_devices_are_found_again(command, example, tmp_path):
    """Spread of every level, a component of crossbars, shares of stuck devices: all within intervals."""
    options = ("--device", "fefet1", "--stuck-at", "0.004,0.002", "--correlated", "0.05:64x64")
    chips = _chips(command, example, tmp_path, "c", *options, chips=3, mapped=("--device", "fefet1"))
    _, found, profile = _fit(command, tmp_path, chips)
    assert found["crossbars"] == 60
    for part, true in (("stuck_low", 0.004), ("stuck_high", 0.002)):
        assert found[part]["low"] < true < found[part]["high"]
    common = {one["part"]: one for one in found["components"]}
    assert common["crossbar"]["sure"]
    assert common["crossbar"]["std"]["low"] < 0.15 < common["crossbar"]["std"]["high"]
    assert not common["row"]["sure"]
    assert not common["column"]["sure"]
    own = [0.1, 0.4, 0.4, 0.1]
    for level, spread in zip(found["levels"], own, strict=True):
        assert level["std"]["value"] == pytest.approx(np.hypot(spread, 0.15), rel=0.1)
        assert level["p_normal"] > 1e-4
    assert [term.kind for term in profile.noise] == ["shared", "normal", "stuck_at"]


LAWS = {
    "rram": "normal, spread constant",
    "fefet1": "normal, spread polynomial of degree 2",  # exact on four levels: 1, 4, 4, 1
    "rram_milo2021": "normal, spread polynomial of degree 1",
    "rram_65nm": "lognormal, spread a number for each level",
    "sonos_day0": "normal, spread saturating",
}


@pytest.mark.parametrize(("device", "law"), LAWS.items())
def test_the_law_of_a_bundled_profile_is_chosen(command, example, tmp_path, device, law):
    """By cross-validation over crossbars; the fitted profile has the spread of the one it was drawn with."""
    chips = _chips(command, example, tmp_path, "c", "--device", device)
    _, found, profile = _fit(command, tmp_path, chips)
    assert found["laws"][0]["name"] == law
    assert found["laws"][0]["behind"] == 0
    assert profile.window == load_profile(device).window
    shown = [command("devices", "show", name, "--json") for name in (device, tmp_path / "my.json")]
    rms = [json.loads(ran.out)["weight_sigma"]["rms"] for ran in shown]
    if device != "sonos_day0":  # which is read with noise, too
        assert rms[1] == pytest.approx(rms[0], rel=0.03)


def test_drift_is_found_from_several_times(command, example, tmp_path):
    """Chips of one name at two times: the mean exponent is that of the law, and the profile drifts."""
    hour = _chips(
        command, example, tmp_path, "hour", "--device", "pcm", "--time", "1h", mapped=("--device", "pcm")
    )
    day = _chips(command, example, tmp_path, "day", "--device", "pcm", "--time", "1d")
    for folder, time_s in ((hour, 3600), (day, 86400)):
        for chip in folder.glob("chip-*"):
            (chip / "chip.json").write_text(json.dumps({"time_s": time_s}))
    _, found, profile = _fit(command, tmp_path, hour, day)
    assert found["times"] == [3600, 86400]
    # ν lies between 0.049 and 0.1 by its law; small conductances are clipped at zero and left out.
    assert 0.045 < found["drift_mean"]["value"] < 0.1
    assert profile.time is not None
    assert "drift" in {term.kind for term in profile.noise}


def test_several_reads_give_a_term_of_read_noise(command, example, tmp_path):
    """The spread over reads of a device is the read noise of the profile."""
    options = ("--device", "rram", "--read-noise", "0.02", "--reads", 8)
    chips = _chips(command, example, tmp_path, "c", *options, chips=1, mapped=("--device", "rram"))
    _, found, profile = _fit(command, tmp_path, chips)
    assert found["read"]
    read = next(term for term in profile.noise if term.kind == "read")
    assert read.sigma.coefficients[0] == pytest.approx(0.06, rel=0.05)  # of three level spacings


def test_a_profile_that_does_not_predict_its_chips_says_so(command, example, tmp_path):
    """A class whose columns are open, few among all devices: exit 1 and DOES NOT FIT."""
    chips = _chips(command, example, tmp_path, "c", "--device", "rram", "--sigma", 0.02, chips=1,
                   mapped=("--device", "rram"))  # fmt: skip
    here = shutil.copytree(example.parent, tmp_path / "examples")
    manifest = tmp_path / "m" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(example), str(here / example.name)))
    trials = ("--trials", 150)  # fewer cannot say that a chip is beyond 95 % of them
    ran, found, _ = _fit(command, tmp_path, chips, trials=trials)
    assert (ran.code, found["predicted"][0]["outside"]) == (0, False)
    from nvaudit.mapping.array_files import read_arrays, write_arrays

    path = next(iter(sorted((chips / "chip-0").glob("arrays/*fc2*/*.npz"))))
    arrays = read_arrays(path, (64, 64))
    path.unlink()
    g = arrays["conductance"].copy()
    g[:, 12:16] = np.where(np.isnan(g[:, 12:16]), np.nan, 0.0)
    write_arrays(path.with_suffix(""), arrays | {"conductance": g}, "npz")
    ran, found, _ = _fit(command, tmp_path, chips, trials=trials)
    assert ran.code == 1
    assert "DOES NOT FIT" in ran.out
    assert found["predicted"][0]["outside"]


def test_what_is_left_out_of_a_fit_is_said(command, example, tmp_path):
    """Devices that were not measured, by number, and levels of too few devices, by name."""
    from nvaudit.mapping.array_files import read_arrays, write_arrays

    chips = _chips(command, example, tmp_path, "c", "--device", "rram", chips=1)
    levels = 0
    for path in sorted((chips / "chip-0").glob("arrays/*/*.npz")):
        target = read_arrays(tmp_path / "m" / path.relative_to(chips / "chip-0"), (64, 64))
        arrays = read_arrays(path, (64, 64))
        gone = target["used"] & (target["level"] == 3)
        gone.flat[np.flatnonzero(gone)[:5] if not levels else []] = False
        levels += int(gone.sum())
        g = np.where(gone, np.nan, arrays["conductance"])
        path.unlink()
        write_arrays(path.with_suffix(""), arrays | {"conductance": g}, "npz")
    _, found, _ = _fit(command, tmp_path, chips)
    assert [one["level"] for one in found["levels"]] == [0, 1, 2]
    assert found["notes"][:2] == [
        f"{levels:,} of 72,992 devices were not measured (NaN), and are left out",
        "levels with fewer than 20 devices are not described: 3",
    ]


def test_what_cannot_be_fitted_is_refused(command, example, tmp_path):
    """Chips in the place of the mapping, one folder alone, a window, an infinite value."""
    chips = _chips(command, example, tmp_path, "c", "--device", "rram", chips=1)
    out = ("-o", tmp_path / "my.json", "-q")
    assert "these are chips" in command("devices", "fit", chips, chips, *out).err
    assert "MEASURED: missing" in command("devices", "fit", tmp_path / "m", *out).err
    ran = command("devices", "fit", tmp_path / "m", chips, "--window", 0, 1, *out)
    assert "that of the mapping" in ran.err
    from nvaudit.mapping.array_files import read_arrays, write_arrays

    path = next(iter(sorted((chips / "chip-0").glob("arrays/*/*.npz"))))
    arrays = read_arrays(path, (64, 64))
    write_arrays(path.with_suffix(""), arrays | {"conductance": np.full((64, 64), np.inf)}, "npz")
    ran = command("devices", "fit", tmp_path / "m", chips, *out)
    assert (ran.code, "infinite" in ran.err) == (2, True)
    for factor, said in ((1e3, "10^3 times too large"), (1e-6, "10^6 times too small")):
        g = arrays["conductance"] * np.float32(factor)
        write_arrays(path.with_suffix(""), arrays | {"conductance": g}, "npz")
        ran = command("devices", "fit", tmp_path / "m", chips, *out)
        assert (ran.code, said in ran.err) == (2, True)
    for file in (chips / "chip-0").glob("arrays/*/*.npz"):
        g = np.full((64, 64), np.nan)
        write_arrays(file.with_suffix(""), read_arrays(file, (64, 64)) | {"conductance": g}, "npz")
    ran = command("devices", "fit", tmp_path / "m", chips, *out)
    assert (ran.code, "no device was measured" in ran.err) == (2, True)
    ran = command("devices", "fit", tmp_path / "m", tmp_path / "m", *out)
    assert (ran.code, "wrote to program by" in ran.err) == (2, True)
    assert not (tmp_path / "my.json").exists()


@pytest.mark.parametrize("where", ["manifest.json", "chip-0/arrays/*/000000.npz"])
def test_what_is_read_is_not_replaced(command, example, tmp_path, where):
    """Neither the profile nor a report takes the place of a file of the arrays."""
    for simulate in ((), ("--simulate", 2)):
        folder = tmp_path / ("chips" if simulate else "m")
        assert command("map", example, "-d", "fefet1", *simulate, "-o", folder, "-q").code == 0
    (place, *_) = (tmp_path / "chips").glob(where)
    before = place.read_bytes()
    words = ("devices", "fit", tmp_path / "m", tmp_path / "chips", "-q")
    for outputs in (("-o", place), ("-o", tmp_path / "my.json", "--report", place)):
        ran = command(*words, *outputs)
        assert (ran.code, f"this is {place.name} of {tmp_path / 'chips'}" in ran.err) == (2, True), ran.err
    assert place.read_bytes() == before
