"""Whole runs on the example network: workers, order, batches and accidents leave the values alone."""

import os
import signal
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from quick import audit

from nvaudit.perturb import engine as engine_module
from nvaudit.perturb import scores as scores_module
from nvaudit.perturb.chip import TensorLaw
from nvaudit.perturb.difficulty import estimate_difficulty
from nvaudit.perturb.engine import QUANTISED, Engine
from nvaudit.perturb.metrics import resolve_metric
from nvaudit.perturb.montecarlo import ChipRun, ChipRunner
from nvaudit.perturb.outcome import Outcome
from nvaudit.perturb.race import Band, Edge, RaceTask
from nvaudit.perturb.schedule import quiet
from nvaudit.perturb.workers import WorkerPool
from nvaudit.rng import stream
from nvaudit.session import prepare
from nvaudit.spec import make_spec

MODEL = Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"
LIMIT = 120
TRIALS = 16
SIGMAS = (0.2, 0.4)


def spec_of(**options):
    return make_spec(model=MODEL, device="rram", limit=LIMIT, trials=TRIALS, sigmas=SIGMAS, **options)


def run_chips(pool, metric, points, trials, order=None, progress=quiet):
    """Metric of every chip, shape (point, trial), in any order, and the runner; NaN for chips left out."""
    values = np.full((points, trials), np.nan)
    runner = ChipRunner(pool, metric, None, points, trials, progress)
    calls = [ChipRun(*divmod(int(i), trials)) for i in (range(points * trials) if order is None else order)]
    runner.run(calls, lambda call, outcome: values.__setitem__((call.point, call.trial), outcome.value))
    return values, runner


@contextmanager
def running(folder, workers, **options):
    """A prepared run: a function that runs its trials, the pool, and the list of events."""
    folder.mkdir()
    session = prepare(spec_of(**options), folder)
    with WorkerPool(workers, session.workload, session.events.append) as pool:
        probe = pool.submit("probe", "probe").result(timeout=60)
        metric = resolve_metric(None, probe.output, session.dataset.labels, session.dataset.label_kind)

        def run(**more):
            return run_chips(pool, metric, len(SIGMAS), TRIALS, **more)[0]

        yield run, pool, session.events


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """Values of the plain run in this process, shape (sigma, trial)."""
    with running(tmp_path_factory.mktemp("plain") / "run", 0) as (run, _, _):
        return run()


def test_values_are_fractions_that_vary(values):
    """Every chip has an accuracy, in whole images; chips differ, and more noise is worse on average."""
    assert values.shape == (2, TRIALS)
    assert np.rint(values * LIMIT) == pytest.approx(values * LIMIT, abs=1e-9)
    assert len(np.unique(values[1])) > 3
    assert values[1].mean() < values[0].mean() <= 1


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_does_not_matter(workers, values, tmp_path):
    """In other processes, one or two of them, the values are bit for bit the same."""
    with running(tmp_path / "run", workers) as (run, _, events):
        assert run().tobytes() == values.tobytes()
    assert events == []


@pytest.mark.parametrize("workers", [0, 2])
def test_the_order_of_trials_does_not_matter(workers, values, tmp_path):
    """Shuffled over trials and operating points, the values are the same."""
    order = np.random.default_rng(0).permutation(2 * TRIALS)
    with running(tmp_path / "run", workers) as (run, _, _):
        assert run(order=order).tobytes() == values.tobytes()


def test_a_run_survives_a_killed_worker(values, tmp_path):
    """A worker killed in mid-run is replaced, the run says so, and the values are the same."""
    with running(tmp_path / "run", 2) as (run, pool, events):

        def kill_one(what, done, total):
            if done == 5:
                worker = sorted(pool._all, key=lambda w: w._process.pid)[0]
                os.kill(worker._process.pid, signal.SIGKILL)

        assert run(progress=kill_one).tobytes() == values.tobytes()
    assert len(events) == 1
    assert "signal SIGKILL; replaced" in events[0]


def test_progress_and_counts(tmp_path):
    """Every chip is told once, in order of completion; images and seconds are counted."""
    told = []
    session = prepare(spec_of(), tmp_path)
    with WorkerPool(0, session.workload) as pool:
        probe = pool.submit("probe", "probe").result()
        metric = resolve_metric(None, probe.output, session.dataset.labels, session.dataset.label_kind)
        _, runner = run_chips(pool, metric, len(SIGMAS), TRIALS, progress=lambda *step: told.append(step))
    assert {what for what, _, _ in told} == {"chips"}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1] == ("chips", 2 * TRIALS, 2 * TRIALS)
    assert runner.images == {0: TRIALS * LIMIT, 1: TRIALS * LIMIT}
    assert len(runner.seconds) == 2 * TRIALS
    assert min(runner.seconds) > 0


def test_part_of_a_run_is_the_same_part(values, tmp_path):
    """Trials 3 and 9 alone have the values they have in the full run; the others stay unknown."""
    with running(tmp_path / "run", 0) as (run, _, _):
        some = run(order=np.array([TRIALS + 3, 9]))
    assert some[1, 3] == values[1, 3]
    assert some[0, 9] == values[0, 9]
    assert np.isnan(some).sum() == 2 * TRIALS - 2


def test_batches_may_only_flip_ties(values, tmp_path):
    """Another batch size leaves every chip's weights the same bits; accuracy moves by ties at most.

    A matrix product may sum in another order, so an image whose two best scores tie within rounding may
    flip: at most one image in a chip here.
    """
    with running(tmp_path / "run", 0, batch_size=7) as (run, _, _):
        other = run()
    assert np.abs(np.rint((other - values) * LIMIT)).max() <= 1
    drawn = []
    for size in (7, 64):
        folder = tmp_path / f"batch-{size}"
        folder.mkdir()
        work = prepare(spec_of(batch_size=size), folder).workload
        assert work.batch == size
        drawn.append(
            [
                TensorLaw(tensor.open(), point).draw(work.seed, trial).weights.tobytes()
                for tensor in work.tensors
                for point in work.points
                for trial in (0, 7)
            ]
        )
    assert drawn[0] == drawn[1]


def test_seeds_make_other_chips(values, tmp_path):
    """Another seed gives another table of values."""
    with running(tmp_path / "run", 0, seed=1) as (run, _, _):
        assert (run() != values).any()


def test_a_noiseless_chip_is_the_quantised_model(tmp_path):
    """At σ = 0 every chip scores what the quantised model scores, on the fast path and device by device."""
    for every_device in (False, True):
        folder = tmp_path / str(every_device)
        folder.mkdir()
        spec = make_spec(
            model=MODEL, device="fefet1", limit=LIMIT, trials=2, sigmas=(0.0,), every_device=every_device
        )
        session = prepare(spec, folder)
        with WorkerPool(0, session.workload) as pool:
            probe = pool.submit("probe", "probe").result()
            metric = resolve_metric("cross_entropy", probe.output, session.dataset.labels, "class")
            quantised = pool.submit("quantised", "chip", metric, None, 0, QUANTISED).result()
            chips, _ = run_chips(pool, metric, 1, 2)
        assert (chips == quantised.value).all()


def test_fast_and_device_by_device_have_one_law(tmp_path):
    """Mean loss over 60 chips agrees between the collapse and the devices: |z| < 5, false alarm 6e-7."""
    found = []
    for every_device in (False, True):
        folder = tmp_path / str(every_device)
        folder.mkdir()
        spec = make_spec(
            model=MODEL,
            device="fefet2",
            limit=LIMIT,
            sigmas=(0.2,),
            every_device=every_device,
            batch_size=LIMIT,
        )
        session = prepare(spec, folder)
        with WorkerPool(0, session.workload) as pool:
            probe = pool.submit("probe", "probe").result()
            metric = resolve_metric("cross_entropy", probe.output, session.dataset.labels, "class")
            found.append(run_chips(pool, metric, 1, 60)[0][0])
    one, other = found
    assert not (one == other).any()
    z = (one.mean() - other.mean()) / np.sqrt(one.var(ddof=1) / 60 + other.var(ddof=1) / 60)
    assert abs(z) < 5


@pytest.mark.parametrize("metric", [None, "cross_entropy", "agreement"])
def test_the_report_does_not_depend_on_workers(metric):
    """The audit's results are equal with and without worker processes; only time and ``workers`` differ."""
    reports = [
        audit(MODEL, "rram", limit=LIMIT, trials=8, sigmas=(0.3,), metric=metric, workers=workers)
        for workers in (0, 2)
    ]
    one, other = (report.model_dump(mode="json", exclude={"timing", "run"}) for report in reports)
    for part in (one, other):
        for sweep in ("trials",):
            part[sweep] = {k: v for k, v in part[sweep].items() if "second" not in k}
    assert one == other
    assert reports[0].nominal == (1.0 if metric == "agreement" else reports[0].nominal)


@pytest.mark.parametrize("device", ["fefet1", "pcm"])
def test_large_models_take_another_way_to_the_same_values(monkeypatch, device):
    """Weights through a mapped file and without kept tables: the same report values, bit for bit."""
    options = {"trials": 4, "limit": 64, "workers": 0, "metric": "cross_entropy"}
    small = audit(MODEL, device, **options)
    monkeypatch.setattr("nvaudit.perturb.engine.FILE_BYTES", 0)
    monkeypatch.setattr("nvaudit.perturb.engine.CACHE_BYTES", 0)
    large = audit(MODEL, device, **options)
    assert large.trials.values == small.trials.values
    assert large.quantised == small.quantised


def test_tables_are_kept_only_while_those_of_all_tensors_are_small(monkeypatch, tmp_path):
    """The budget is one for the model, not one for each tensor."""
    workload = prepare(make_spec(model=MODEL, device="rram"), tmp_path).workload
    weights = sum(tensor.open().code.size for tensor in workload.tensors)
    for budget, kept in ((8 * weights, True), (8 * weights - 1, False)):
        monkeypatch.setattr("nvaudit.perturb.engine.CACHE_BYTES", budget)
        engine = Engine(workload)
        list(engine.fill(0, 0))
        assert {bool(law._tables) for law in engine._tensor_laws(0)} == {kept}


@pytest.mark.parametrize("uneven", [False, True])
def test_a_race_that_stays_open_looks_at_every_sample_once(uneven, tmp_path, monkeypatch):
    """It goes on where it was given up: no sample is run again, and the metric is that of the whole chip.

    To the last bit where scores are fractions too, whose sum depends on their order.
    """
    session = prepare(spec_of(), tmp_path)
    engine = Engine(session.workload)
    labels = session.dataset.labels
    metric = resolve_metric(None, engine.probe().output, labels, session.dataset.label_kind)
    if uneven:
        monkeypatch.setattr(
            engine_module, "score", lambda m, out, y: np.abs(np.tanh(out[:, 0] / 7.0)).astype(float)
        )
        monkeypatch.setattr(scores_module, "GATHER_BYTES", 1)
    errors = stream(0, "test open").random((8, LIMIT)) < 0.1
    difficulty = estimate_difficulty(errors.astype(float), np.arange(LIMIT, 0.0, -1))
    difficulty.save(tmp_path / "difficulty")
    within = (Band((Edge(-1.0, 1e-3),), (Edge(2.0, 1e-3),)),)
    task = RaceTask("kpp", str(tmp_path / "difficulty"), difficulty.digest, within, 80)
    race, whole = engine.race(metric, None, 1, 3, task), engine.chip(metric, None, 1, 3)
    assert race.gap is None
    assert 0 < race.images <= 80
    assert race.images + race.rest.images == LIMIT
    assert race.rest.value == whole.value
    assert engine.race(metric, None, 1, 3, task, finish=False).rest is None


def test_a_race_that_went_on_tells_how_long_the_next_one_may_take():
    """Its run on every sample is part of the call: by the race alone the next one would end too late."""

    class AtOnce:
        width = depth = 1

        def submit(self, *call):
            future = Future()
            future.set_result(Outcome(0.5, 70, 1.0, None, 0, Outcome(0.5, 30, 4.0)))
            return future

    task = RaceTask("kpp", "", 0, (Band((Edge(0.5, 0.1),), ()),), 100)
    runner = ChipRunner(AtOnce(), None, None, 1, 3)
    assert {trial: value for trial, (_, value) in runner.races(0, [0, 1], task).items()} == {0: 0.5, 1: 0.5}
    assert runner._typical_s(ChipRun(0, 2, task)) == 4.0
