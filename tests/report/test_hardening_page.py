"""The pages of `harden`: the same chips before and after, the training, candidates, what was tried."""

import json
import re
from io import StringIO

import pytest
from report_samples import IMAGES, accuracies, report, share
from rich.console import Console
from test_verify_page import plan

pytest.importorskip("plotly")

from nvaudit.report.document import Table
from nvaudit.report.groups import ZeroGroupsLayer, zero_groups_info
from nvaudit.report.hardening.document import harden_document
from nvaudit.report.hardening.result import (
    AttemptInfo,
    CandidateInfo,
    EpochInfo,
    HardenHashes,
    TrainingInfo,
    harden_report,
)
from nvaudit.report.remap.document import remap_document
from nvaudit.report.remap.result import RemapAudit, RemapHashes, RemapReport, RemapStep, RemapTensor
from nvaudit.report.render.html import html_document
from nvaudit.report.render.terminal import print_document
from nvaudit.report.sections import MetricInfo, ModelInfo


def history(networks=1, epochs=3, scored=True):
    return tuple(
        EpochInfo(
            epoch=number,
            sigma=(0.1,) * networks,
            loss=tuple(1 / (number + lane) for lane in range(networks)),
            kpp=tuple(0.5 + 0.1 * lane for lane in range(networks)) if scored and number > 1 else (),
        )
        for number in range(1, epochs + 1)
    )


def training(rows, **more):
    fields = {
        "samples": 80, "validation_samples": 20, "score_images": 20, "epochs": len(rows),
        "loss": "cross-entropy", "device_sigma": 0.1, "sigma": 0.1, "interval": None, "kept": "last",
        "history": rows,
    }  # fmt: skip
    return TrainingInfo(**fields | more)


HASHES = HardenHashes(model="1", data="2", device="3", hardened="4")


def hardened(before=0.7, after=0.8, found=None, model="m.onnx", **more):
    given = ModelInfo(path=model, opset=17)
    sides = [
        report(accuracies(500, mean, address=place), model=given)
        for place, mean in enumerate((before, after))
    ]
    fields = {
        "method": "best", "training": training(history()) if found is None else found,
        "hardened": "h.onnx", "nvaudit_version": "1", "run": {"seed": 3}, "hashes": HASHES,
        "timing": {"total": 2.0},
    }  # fmt: skip
    return harden_report(sides[0], sides[1], None, more.pop("label_free", False), **fields | more)


def page_of(report):
    return html_document(harden_document(report))


def figures(text):
    return json.loads(re.search(r"<script[^>]*application/json[^>]*>(.*?)</script>", text, re.DOTALL)[1])[
        "figures"
    ]


def test_the_page_says_what_became_of_the_kpp():
    """The gain stands at the top, and the two histograms hold every chip, in bins that both share."""
    found = hardened()
    page, text = harden_document(found), page_of(found)
    change = found.difference.kpp.value
    assert page.hero.title == f"KPP 1 % raised by {100 * change:.2f} points"
    assert page.hero.role == "none"
    assert [one.label for one in page.hero.numbers][:3] == ["KPP 1 %", "mean of the chips", "without noise"]
    before, after = figures(text)["pair"]["data"]
    assert (before["name"], after["name"]) == ("before", "after")
    assert sum(before["y"]) == sum(after["y"]) == 500
    assert before["x"] == after["x"]
    for bars, side in ((before, found.before), (after, found.after)):
        centre = sum(x * n for x, n in zip(bars["x"], bars["y"], strict=True)) / 500
        assert centre == pytest.approx(side.mean, abs=1 / IMAGES)
    assert "//" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_a_worse_model_is_marked():
    """What lowered the KPP is not shown as a success."""
    hero = harden_document(hardened(0.8, 0.7)).hero
    assert (hero.role, hero.word) == ("fail", "worse")
    assert "lowered by" in hero.title


def test_chips_that_are_all_alike_are_one_bar():
    """A model that noise does not touch has nothing to bin."""
    alike = report((0.75,) * 40)
    fields = {
        "method": "none", "hardened": "h", "nvaudit_version": "1", "run": {}, "hashes": HASHES,
        "training": None,
    }  # fmt: skip
    found = harden_report(alike, alike, None, False, **fields)
    assert [bars["y"] for bars in figures(page_of(found))["pair"]["data"]] == [[40], [40]]
    assert harden_document(found).hero.title == "KPP 1 % is what it was"


@pytest.mark.parametrize(("networks", "curves"), [(1, 2), (3, 6)])
def test_every_network_of_a_training_has_its_curves(networks, curves):
    """Loss of every epoch, KPP where it was scored; TRICE has three of each."""
    found = hardened(found=training(history(networks)))
    drawn = figures(page_of(found))["training-figure"]["data"]
    assert len(drawn) == curves
    assert {tuple(line["x"]) for line in drawn} == {(1, 2, 3), (2, 3)}
    table = next(one for one in harden_document(found).figures if one.name == "training-figure").numbers
    assert len(table.rows) == 3


def test_a_training_without_scores_has_one_row():
    """No empty axes."""
    data = figures(page_of(hardened(found=training(history(scored=False)))))["training-figure"]
    assert "yaxis2" not in data["layout"]
    assert len(data["data"]) == 1


def test_no_training_no_section():
    """Without epochs there is no curve; without a training no section."""
    names = [section.name for section in harden_document(hardened(found=training(()))).sections]
    assert "training" in names
    assert "candidates-section" not in names
    assert [one.name for one in harden_document(hardened(found=training(()))).figures] == ["pair"]


def test_candidates_of_stability_vat():
    """Roughness against KPP, the kept one in another colour."""
    rows = [
        CandidateInfo(
            sigma=sigma, loss=0.3, clean=0.9, kpp=0.5 + sigma, roughness=0.01 * (1 - sigma), spread=0.002
        )
        for sigma in (0.1, 0.2)
    ]
    rows.insert(0, rows[0].model_copy(update={"sigma": None, "loss": None, "spread": None}))
    found = hardened(found=training(history(), candidates=tuple(rows), kept_candidate=2))
    (points,) = figures(page_of(found))["candidates"]["data"]
    assert points["text"] == ["start", "σ 0.1", "σ 0.2"]
    assert points["x"] == pytest.approx([9, 9, 8])
    assert points["marker"]["color"][2] != points["marker"]["color"][0] == points["marker"]["color"][1]


def two_attempts(kept, **more):
    rows = [
        AttemptInfo(name="bold", lr=0.003, clip_weights=1.0, kpp=0.83, clean_loss=0.05),
        AttemptInfo(name="gentle", lr=0.0003, clip_weights=2.5, kpp=0.82, clean_loss=0.0075),
    ]
    fields = {
        "attempts": tuple(rows), "kept_attempt": kept, "kept": "better", "compared": (0.66, 0.82),
        "clean_loss": 0.0075, "kept_epoch": 0 if kept is None else 3,
    }  # fmt: skip
    return hardened(found=training(history(), **fields | more))


@pytest.mark.parametrize(("kept", "row"), [(1, 2), (None, 0)])
def test_two_trainings_are_compared(kept, row):
    """A second training is shown beside the first and the given model, with what each cost without noise."""
    found = two_attempts(kept)
    table = next(
        block
        for section in harden_document(found).sections
        for block in section.blocks
        if isinstance(block, Table) and block.name == "attempts"
    )
    assert [one[0] for one in table.rows] == ["none (given)", "bold", "gentle"]
    assert [one[3] for one in table.rows] == ["", "−5.00 points", "−0.75 points"]
    assert [place for place, one in enumerate(table.rows) if one[-1] == "kept"] == [row]
    console = Console(width=100, file=StringIO())
    print_document(harden_document(found), console)
    text = " ".join(console.file.getvalue().split())
    assert "a gentle one followed" in text
    assert "losses without noise beyond 1.5 points count against it" in text
    end = "training did not surpass it" if kept is None else "the last epoch of the gentle training"
    assert f"{end} (without noise, on all held-out samples: −0.75 points)" in text


def test_one_training_needs_no_table():
    """With one training there is nothing to choose from but the given model."""
    (first, _), few = two_attempts(0).training.attempts, {"max_clean_loss": 0.01}
    found = two_attempts(0, attempts=(first,), **few)
    assert 'id="attempts"' not in page_of(found)
    both = two_attempts(1, **few)
    assert 'id="attempts"' in page_of(both)
    assert "beyond --max-clean-loss rules a network out" in page_of(both)


def test_hostile_names_are_text():
    """A name from a file is never markup."""
    text = page_of(hardened(model="<img src=x onerror=alert(1)>.onnx", label_free=True))
    assert "<img" not in text
    assert "&lt;img src" in text
    assert "label-free" in text.lower()


def remapped(**changes):
    def step(name, kept, worst):
        return RemapStep(
            name=name, nominal=0.9, chips=16, quantised=0.9, kpp=worst, worst_quarter=worst, mean=worst,
            seconds=1.0, kept=kept, reason="" if kept else "another is better",
        )  # fmt: skip

    def side(kpp):
        return RemapAudit(nominal=0.9, quantised=0.9, kpp=kpp, low=None, high=None, mean=kpp, min=kpp)

    given = hardened()
    fields = {
        "nvaudit_version": "1", "headline": "KPP 1 % 50.00 % → 60.00 %", "output": "r.onnx", "metric": "top1",
        "metric_info": MetricInfo(higher_is_better=True, unit="fraction"), "model": ModelInfo(path="m.onnx"),
        "device": {"name": "rram"},
        "unit": "fraction", "higher_is_better": True, "label_free": False, "percentile": 1.0, "sigma": 0.1,
        "sigma_unit": "level", "calibration": "16 chips on 20 images",
        "steps": (step("original", False, 0.5), step("clipped <b>", True, 0.6)),
        "tensors": (RemapTensor(name="w", op="Conv", scales="rescaled", clip=0.9, clipped=1),),
        "exact": False, "added_factors": 0, "before": side(0.5), "after": side(0.6),
        "difference": given.difference,
        "run": {"model": "m.onnx", "device": "rram", "seed": 0},
        "hashes": RemapHashes(model="1", data="2", device="3", output="4"),
    }  # fmt: skip
    return RemapReport(**fields | changes)


def test_the_page_of_a_remapping():
    """The gain, every candidate as a point, the kept one filled, and every weight."""
    found = remapped()
    page = remap_document(found)
    assert page.hero.title == "KPP 1 % raised by 10.00 points"
    (points,) = figures(html_document(remap_document(found)))["steps"]["data"]
    assert points["x"] == [0.5, 0.6]
    assert points["marker"]["symbol"] == ["circle-open", "circle"]
    assert "at 90 % of the range (1 weight)".replace(" %", "\N{NO-BREAK SPACE}%") in html_document(
        remap_document(found)
    )
    assert "clipped &lt;b&gt;" in html_document(remap_document(found))


def loss_side(least, greatest):
    return RemapAudit(
        nominal=0.1, quantised=0.1, kpp=0.5, low=None, high=None, mean=0.3, min=least, worst=greatest
    )


def test_the_worst_chip_of_a_loss_is_the_greatest():
    """Where lower is better the page shows the chip with the greatest loss, never the least."""
    found = remapped(
        unit="nats", higher_is_better=False, before=loss_side(0.2, 0.9), after=loss_side(0.1, 0.6)
    )
    (worst,) = [big for big in remap_document(found).hero.numbers if big.label == "worst chip"]
    assert worst.value == "0.6"
    assert "before: 0.9" in worst.note
    old = [loss_side(0.2, None), loss_side(0.1, None)]
    page = remap_document(remapped(unit="nats", higher_is_better=False, before=old[0], after=old[1]))
    assert not [big for big in page.hero.numbers if big.label == "worst chip"]


def test_groups_of_zeros_and_the_plan_are_on_the_page():
    """What the text says of the hardened model's array the page says too: zeros, share, plan with tensors."""
    zeros = zero_groups_info(
        64, 64, [ZeroGroupsLayer(name="w", groups=10, zero_groups=4, weights=100, zero_weights=40,
                                 crossbars=3, saved=1)],
    )  # fmt: skip
    found = hardened(verify_plan=plan()).model_copy(update={"zero_groups": zeros, "mapped": share()})
    page = page_of(found)
    text = StringIO()
    print_document(harden_document(found), Console(file=text, width=100))
    said = " ".join(text.getvalue().split())
    for words in ("4 of 10 groups hold zeros only", "saves 1 of 3 crossbars of 64 × 64"):
        assert words in page
        assert words in said
    sections = {section.name: section for section in harden_document(found).sections}
    assert {"mapping", "verify-plan", "curve", "tensors-section"} <= set(sections)
    (table,) = [b for b in sections["tensors-section"].blocks if isinstance(b, Table) and b.name == "tensors"]
    assert [row[0] for row in table.rows] == ["<b>conv</b>", "fc"]
    assert "95.0 % of the products on the array" in said
    assert re.search(r"95\.0.% of the products on the array", page)


def test_a_remapping_that_changed_nothing():
    """No audit was run then, and the page says so."""
    steps = tuple(step.model_copy(update={"worst_quarter": None, "kpp": None}) for step in remapped().steps)
    page = remap_document(remapped(before=None, after=None, difference=None, steps=steps))
    assert page.hero.title == "Nothing was changed"
    assert page.figures == ()
    assert "Nothing was changed, so nothing was audited." in html_document(page)
