"""Attribution: which tensor, noise term or class the loss comes from, on the chips of the audit."""

import shutil

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvaudit.errors import OptionError
from nvaudit.jobs.attributing import (
    FEWEST_IMAGES,
    INFERENCES,
    Ask,
    attribution_parts,
    plan_attribution,
    run_attribution,
)
from nvaudit.perturb.engine import Engine
from nvaudit.perturb.outcome import Probe
from nvaudit.perturb.variant import Variant
from nvaudit.perturb.workers import WorkerPool
from nvaudit.report.attribution.result import AttributionDetail
from nvaudit.rng import stream
from nvaudit.session import prepared, run_nominal, run_probe
from nvaudit.spec import make_spec


def quiet(what, done, total):
    """Tell nobody."""


def in_session(model, device, work, **options):
    """Call ``work(session, pool, metric)`` as an audit would."""
    spec = make_spec(model=str(model), device=device, **options)

    def call(session):
        with WorkerPool(spec.workers, session.workload, session.events.append) as pool:
            metric = run_probe(pool, session)
            if isinstance(metric, Probe):
                return metric
            run_nominal(pool, session, metric)
            return work(session, pool, metric)

    return prepared(spec, quiet, call)


def attribute(
    model, device, *parts, trials=None, images=None, progress=quiet, **options
) -> AttributionDetail:
    """Run an attribution."""

    def work(session, pool, metric):
        plan = plan_attribution(session, Ask(parts, trials, images))
        return run_attribution(plan, session, pool, metric, progress)

    return in_session(model, device, work, **options)


def plan_of(model, device, *parts, trials=None, images=None, **options):
    """Settle an attribution."""
    return in_session(
        model, device, lambda s, pool, m: plan_attribution(s, Ask(parts, trials, images)), **options
    )


@pytest.fixture
def idle_tensor(tmp_path):
    """A classifier of two tensors; one meets zeros only, so that its noise cannot matter."""
    rng = stream(0, "idle tensor")
    matters = rng.standard_normal((12, 4)).astype(np.float32)
    x = rng.standard_normal((150, 12)).astype(np.float32)
    stored = {"matters": matters, "idle": matters[::-1].copy(), "zero": np.zeros(1, np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "matters"], ["a"]),
        helper.make_node("Mul", ["x", "zero"], ["nothing"]),
        helper.make_node("MatMul", ["nothing", "idle"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "idle.onnx"
    path.write_bytes(model.SerializeToString())
    np.savez(path.with_suffix(".npz"), x=x, y=(x @ matters).argmax(axis=1))
    return path


def test_noise_that_does_not_matter_costs_nothing(idle_tensor):
    """Exactly: the other tensor has the whole loss, on every chip."""
    found = attribute(idle_tensor, "rram", "tensors", workers=0, sigmas=(0.4,), trials=30)
    first, second = found.tensors.items
    assert (first.name, second.name) == ("matters", "idle")
    assert second.cost == 0
    assert second.alone[0].differing == second.given_back[0].differing == 0
    assert second.alone[0].mean.missing == "all chips have the same difference"
    assert second.share == 0
    assert first.only_mean == first.given_back[0].mean.value * -1 + found.tensors.quantised
    assert first.share == pytest.approx(1)
    assert first.cost == found.tensors.quantised - found.tensors.noisy_kpp[0] > 0
    assert found.costs() == {"matters": first.cost, "idle": 0.0}


def test_two_parts_share_their_runs(idle_tensor):
    """Of two tensors, only one is all but the other: three variants with the whole chip, not five."""
    plan = plan_of(idle_tensor, "rram", "tensors", workers=0)
    assert plan.variants == (Variant(), Variant(frozenset({0})), Variant(frozenset({1})))


@pytest.mark.parametrize(("device", "options"), [("rram", {"sigmas": (0.4,)}), ("pcm", {"time_s": 3600.0})])
def test_chips_are_those_of_the_audit(example, device, options):
    """On all images, the whole chips have the audit's values, and the quantised model its own."""

    def work(session, pool, metric):
        plan = plan_attribution(session, Ask(("tensors", "classes"), 8, None))
        found = run_attribution(plan, session, pool, metric)
        chips = [pool.submit("", "chip", metric, None, 0, trial).result().value for trial in range(8)]
        return plan, found, chips, pool.submit("", "chip", metric, None, 0, -1).result().value

    plan, found, chips, quantised = in_session(example, device, work, workers=0, **options)
    assert plan.images == plan.class_images == 597
    assert found.tensors.quantised == quantised
    assert found.tensors.noisy_mean == np.mean(chips)
    assert found.tensors.noisy_kpp == (min(chips),)
    weighted = sum(row.images * row.mean for row in found.classes.classes) / 597
    assert weighted == pytest.approx(np.mean(chips), abs=1e-12)


def test_classes_against_numpy(example):
    """Nominal, mean and KPP of every class, worked out from the scores of whole chips by hand."""

    def work(session, pool, metric):
        plan = plan_attribution(session, Ask(("classes",), 40, None))
        found = run_attribution(plan, session, pool, metric).classes
        engine = Engine(session.workload)
        scores = np.array([engine.chip_scores(metric, None, 0, trial)[1] for trial in range(40)])
        return found, scores, np.array(session.dataset.labels)

    found, scores, labels = in_session(
        example, "rram", work, workers=0, sigmas=(0.4,), percentiles=(10.0, 50.0)
    )
    assert [row.label for row in found.classes] != sorted(row.label for row in found.classes)
    assert [row.kpp[0] for row in found.classes] == sorted(row.kpp[0] for row in found.classes)
    for row in found.classes:
        own = scores[:, labels == row.label].astype(np.float64)
        assert row.images == own.shape[1]
        by_chip = np.sort(own.sum(axis=1) / own.shape[1])
        assert row.mean == pytest.approx(by_chip.mean(), abs=1e-12)
        assert row.kpp == pytest.approx((by_chip[4], by_chip[20]), abs=1e-12)
        assert row.kpp_low[1] <= row.kpp[1] <= row.kpp_high[1]
    assert sum(row.images for row in found.classes) == labels.size
    with np.load(example.with_suffix(".npz")) as arrays:
        (plain,) = ort.InferenceSession(example).run(None, {"image": arrays["image"]})
        right = plain.argmax(axis=1) == arrays["y"]
    assert all(row.nominal == right[labels == row.label].mean() for row in found.classes)


def test_workers_do_not_matter(example):
    """The same to the last bit in this process and with two workers, for a metric whose sums round."""
    options = {"trials": 6, "images": 100, "metric": "loss", "sigmas": (0.4,)}
    here = attribute(example, "rram", "all", workers=0, **options)
    there = attribute(example, "rram", "all", workers=2, **options)
    assert here == there


def test_terms(example):
    """Each acting term by itself and without it; limits stay; the parts make sense together."""
    found = attribute(
        example, "pcm", "terms", workers=0, trials=25, images=150, time_s=86400.0, metric="loss"
    ).terms
    assert {item.name for item in found.items} == {"programming", "drift", "read"}
    assert found.kept == ("clip",)
    assert found.items[0].name == "drift"
    assert all(item.cost > 0 for item in found.items)  # a loss: positive is a cost here too
    assert all(item.alone[0].mean.value > 0 > item.given_back[0].mean.value for item in found.items)
    assert sum(item.share for item in found.items) == pytest.approx(1, abs=0.05)


def test_the_largest_sigma_of_a_sweep_is_attributed(idle_tensor):
    """Wherever it stands in the list."""
    plan = plan_of(idle_tensor, "rram", "tensors", workers=0, sigmas=(0.1, 0.4, 0.2))
    assert plan.point == 1
    found = attribute(idle_tensor, "rram", "tensors", workers=0, sigmas=(0.1, 0.4, 0.2), trials=2)
    assert found.tensors.sigma == 0.4


def test_layers_limit_what_is_attributed(example):
    """Only mapped tensors have noise."""
    found = attribute(example, "rram", "tensors", workers=0, trials=2, images=20, layers=("fc*",))
    assert {item.name for item in found.tensors.items} == {"fc1.weight", "fc2.weight"}


def test_default_chips_and_images(example):
    """The first 100 chips, no more than the audit has, and images for about a million inferences."""
    plan = plan_of(example, "rram", "tensors", workers=0)
    assert (plan.chips, plan.images) == (100, 597)
    assert plan_of(example, "rram", "tensors", workers=0, trials=30).chips == 30
    asked = plan_of(example, "rram", "all", workers=0, trials=5000, images=None)
    assert asked.chips == 5000
    assert asked.images == FEWEST_IMAGES > INFERENCES // (5000 * len(asked.variants))
    assert asked.class_images == INFERENCES // 5000 * 1
    assert plan_of(example, "rram", "tensors", workers=0, images=10**6).images == 597


def test_nothing_to_tell_apart_is_said(idle_tensor):
    """One acting term, one noisy tensor, no noise at all: a sentence instead of a table."""
    found = attribute(idle_tensor, "rram", "tensors", "terms", workers=0, layers=("idle",), sigmas=(0.2,))
    assert found.tensors is None
    assert found.terms is None
    assert found.costs() == {}
    assert "by tensor: only idle has noise" in found.notes[0]
    assert "at sigma 0.2 level spacings, time 0 s only 'programming' acts" in found.notes[1]
    silent = attribute(idle_tensor, "rram", "terms", workers=0, sigmas=(0.0,))
    assert "no noise term acts" in silent.notes[0]


def test_without_labels_classes_are_refused(unlabelled):
    """By name it is an error; of all, classes are left out with a reason, and the rest is done."""
    with pytest.raises(OptionError, match="--attribute classes: the data have no class labels"):
        plan_of(unlabelled, "rram", "classes", workers=0)
    found = attribute(unlabelled, "rram", "all", workers=0, trials=3, images=30, sigmas=(0.4,))
    assert found.classes is None
    assert "by class: the data have no class labels" in found.notes
    assert len(found.tensors.items) == 4


def test_labels_per_position_are_refused(tmp_path):
    """A class per pixel is no class per sample."""
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 4, 4])],
        [numpy_helper.from_array(np.array([1, -1], np.float32).reshape(2, 1, 1, 1), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "pixels.onnx"
    path.write_bytes(model.SerializeToString())
    x = stream(0, "pixels").standard_normal((6, 1, 4, 4)).astype(np.float32)
    np.savez(path.with_suffix(".npz"), x=x, y=(x[:, 0] < 0).astype(np.int64))
    with pytest.raises(OptionError, match="16 positions per sample"):
        plan_of(path, "rram", "classes", workers=0)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (Ask(("tensor",)), "--attribute 'tensor': there is no such attribution; did you mean tensors"),
        (Ask(("everything",)), "use tensors, terms, classes or all"),
        (Ask(("tensors",), trials=0), "--attribution-trials 0: use a whole number"),
        (Ask(("tensors",), images=-1), "--attribution-images -1: use a whole number"),
    ],
)
def test_wrong_options_are_refused(example, ask, message):
    """Before anything runs."""
    with pytest.raises(OptionError, match=message):
        in_session(example, "rram", lambda s, pool, m: plan_attribution(s, ask), workers=0)


def test_names_come_in_one_order():
    """Once each, in the order of the report."""
    assert attribution_parts(("classes", "tensors", "tensors")) == ("tensors", "classes")
    assert attribution_parts(()) == ()


def test_progress_says_the_cost_first(idle_tensor):
    """Before the first chip it is known how many there are."""
    told = []
    attribute(
        idle_tensor, "rram", "tensors", "classes", workers=0, trials=4, images=50,
        progress=lambda *now: told.append(now),
    )  # fmt: skip
    assert told[0] == ("attribution: 3 variants × 4 chips × 50 images", 0, 13)
    assert told[13] == ("attribution: 3 variants × 4 chips × 50 images", 13, 13)
    assert told[14] == ("attribution by class: 4 chips × 50 images", 0, 6)
    assert told[-1][1:] == (6, 6)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupt_stops_at_once(example, workers):
    """What is queued is dropped: a run of hours ends in the time of a few chips."""

    def interrupt(what, done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attribute(example, "pcm", "tensors", workers=workers, trials=10_000, progress=interrupt)


def test_data_sorted_by_class(example, tmp_path):
    """A part of a sorted set holds every class in its share."""
    model = shutil.copy(example, tmp_path / "m.onnx")
    with np.load(example.with_suffix(".npz")) as arrays:
        order = np.argsort(arrays["y"], kind="stable")
        np.savez(tmp_path / "m.npz", **{name: array[order] for name, array in arrays.items()})
    classes = attribute(model, "rram", "classes", workers=0, trials=2, images=60).classes.classes
    assert sorted(row.label for row in classes) == list(range(10))
    assert all(5 <= row.images <= 7 for row in classes)
