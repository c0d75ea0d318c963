"""A chip: the same bits whatever happens around it, and independent of every other chip."""

from dataclasses import replace

import numpy as np
import pytest
from noise_cases import assert_normal, assert_uncorrelated, constant, make_law, make_profile

from nvaudit.device import load_profile, operating_point
from nvaudit.perturb import chip

COLLAPSED = operating_point(load_profile("rram"), 0.4)
BY_LEVEL = operating_point(load_profile("fefet1"), 0.4)
BY_DEVICE = operating_point(load_profile("rram_65nm"))
WITH_READ = operating_point(load_profile("pcm"), time_s=3600.0)
POINTS = [COLLAPSED, BY_LEVEL, BY_DEVICE, WITH_READ]
CODE = np.random.default_rng(0).integers(-255, 256, (64, 9, 7)).astype(np.int16)


def ids(point):
    return point.profile.name


def law_of(point, code=CODE, **options):
    return make_law(point, code, bits=8, scale=options.pop("scale", 0.01), **options)


@pytest.mark.parametrize("point", POINTS, ids=ids)
def test_the_same_address_is_the_same_chip(point):
    """Seed, trial and name decide: drawn again, after other trials, or by a fresh object."""
    law = law_of(point)
    first = law.draw(5, 3)
    law.draw(5, 4)
    for again in (law.draw(5, 3), law_of(point).draw(5, 3)):
        assert again.weights.tobytes() == first.weights.tobytes()
        if first.read_variance is not None:
            assert again.read_variance.tobytes() == first.read_variance.tobytes()


@pytest.mark.parametrize("point", POINTS, ids=ids)
def test_another_seed_trial_or_name_is_another_chip(point):
    """No two chips are equal, and their deviations do not correlate: |r| < 5/sqrt(n), false alarm 6e-7."""
    drawn = [
        law_of(point).draw(0, 0).weights,
        law_of(point).draw(0, 1).weights,
        law_of(point).draw(0, 2**40).weights,
        law_of(point).draw(1, 0).weights,
        law_of(point, key="v").draw(0, 0).weights,
    ]
    for i, one in enumerate(drawn):
        for other in drawn[i + 1 :]:
            assert (one != other).mean() > 0.9
            # The drift of a code is the same on all chips; what is left after it must be independent.
            assert_uncorrelated(_centred(one), _centred(other))


def _centred(weights):
    """Weights less the mean of all weights with the same code."""
    group = CODE.astype(int) + 255
    total = np.bincount(group.ravel(), weights.ravel()) / np.maximum(np.bincount(group.ravel()), 1)
    return weights - total[group]


@pytest.mark.parametrize("point", [COLLAPSED, BY_LEVEL], ids=ids)
@pytest.mark.parametrize("block", [1, 100, 1 << 20])
def test_block_size_does_not_change_a_collapsed_chip(point, block, monkeypatch):
    """How many weights are drawn at a time changes no bit."""
    before = law_of(point).draw(0, 0).weights
    monkeypatch.setattr(chip, "BLOCK", block)
    assert law_of(point).draw(0, 0).weights.tobytes() == before.tobytes()


def test_block_size_does_not_change_the_law_of_devices(monkeypatch):
    """Drawn device by device, blocks are part of a chip's definition, but every block has the right law."""
    monkeypatch.setattr(chip, "BLOCK", 1000)
    point = operating_point(make_profile({"kind": "normal", "unit": "level", "sigma": constant(0.2)}))
    law = make_law(point, np.full((100, 400), 5), every_device=True)
    weights = law.draw(0, 0).weights.astype(float)
    assert_normal(weights.ravel(), 5.0, 0.2)
    assert_uncorrelated(weights[:50], weights[50:])
    assert_uncorrelated(weights[:-2], weights[2:])


@pytest.mark.parametrize("block", [200, 1 << 16])
@pytest.mark.parametrize("point", POINTS, ids=ids)
def test_cached_tables_change_nothing(point, block, monkeypatch):
    """The first draw, later ones from kept tables, and draws that keep none are the same bits."""
    monkeypatch.setattr(chip, "BLOCK", block)
    law = law_of(point)
    kept = [law.draw(0, trial).weights.tobytes() for trial in (0, 0, 1)]
    assert kept[0] == kept[1] != kept[2]
    bare = replace(law_of(point), keep_tables=False)
    assert [bare.draw(0, trial).weights.tobytes() for trial in (0, 0, 1)] == kept
    assert not bare._tables


@pytest.mark.parametrize("every_device", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_channel_scale_multiplies_the_noise_of_its_channel(axis, every_device):
    """Per-channel scales change the units of a channel and nothing else of the chip."""
    shape = [1, 1, 1]
    shape[axis] = CODE.shape[axis]
    scale = np.linspace(0.5, 2.0, CODE.shape[axis], dtype=np.float32).reshape(shape)
    scale.ravel()[1] = 0.0  # a channel of zeros
    plain = law_of(COLLAPSED, scale=1.0, every_device=every_device).draw(0, 0).weights
    scaled = law_of(COLLAPSED, scale=scale, every_device=every_device).draw(0, 0).weights
    assert scaled == pytest.approx(plain * scale, rel=1e-6, abs=1e-4)
    assert (scaled[(slice(None),) * axis + (1,)] == 0).all()


def test_channel_scales_follow_their_rows_over_blocks(monkeypatch):
    """With a block of a few rows each row keeps its own scale, and its own entry of the read variance."""
    monkeypatch.setattr(chip, "BLOCK", 130)
    scale = np.linspace(0.5, 2.0, 64, dtype=np.float32).reshape(64, 1, 1)
    for point in POINTS:
        plain, scaled = law_of(point, scale=1.0).draw(0, 0), law_of(point, scale=scale).draw(0, 0)
        assert scaled.weights == pytest.approx(plain.weights * scale, rel=1e-6, abs=1e-4)
        if plain.read_variance is not None:
            assert scaled.read_variance == pytest.approx(plain.read_variance * scale**2, rel=1e-5)


@pytest.mark.parametrize("point", POINTS, ids=ids)
def test_codes_are_never_touched(point):
    """Read-only codes and scales are accepted and keep their values; each draw is a new array."""
    code, scale = CODE.copy(), np.full((64, 1, 1), 0.01, np.float32)
    code.flags.writeable = scale.flags.writeable = False
    law = law_of(point, code, scale=scale)
    assert np.shares_memory(law.tensor.code, code)
    first = law.draw(0, 0).weights
    saved = first.copy()
    first += 1
    assert (law.draw(0, 0).weights == saved).all()
    assert (code == CODE).all()


def test_codes_mapped_from_a_file(tmp_path):
    """Codes in a read-only memory map give the same chip."""
    np.save(tmp_path / "code.npy", CODE)
    mapped = np.load(tmp_path / "code.npy", mmap_mode="r")
    for point in POINTS:
        assert (
            law_of(point, mapped).draw(0, 0).weights.tobytes() == law_of(point).draw(0, 0).weights.tobytes()
        )


def test_sigma_is_paired_across_operating_points():
    """Common random numbers: at twice the sigma every weight deviates twice as far on the same chip."""
    half, full = (operating_point(load_profile("rram"), s) for s in (0.2, 0.4))
    for every_device in (False, True):
        one, two = (law_of(p, scale=1.0, every_device=every_device).draw(0, 0).weights for p in (half, full))
        assert two - CODE == pytest.approx(2 * (one - CODE), abs=1e-3)
