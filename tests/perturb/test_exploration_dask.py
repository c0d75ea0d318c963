"""An exploration on a Dask cluster is the one that this machine makes."""

import pytest

pytest.importorskip("distributed", reason="Dask is an extra")

from dask_hosts import local_cluster

from nvaudit import explore

AXES = {"crossbar": ((64, 64),), "cell_bits": (1, 2), "adc_bits": (5,)}
FEW = {"technology": "cmos_22nm_neurosim", "trials": 4, "limit": 40, "percentiles": (20.0,)}


@pytest.mark.slow
def test_a_cluster_does_not_matter(example, tmp_path):
    """Every point's files travel to where the run's folder is not seen, and the chips are the same bits."""
    with local_cluster(tmp_path, ["blind"]) as cluster:
        here, there = (
            explore(example, "fefet1", dask=dask, **AXES, **FEW) for dask in (None, cluster.address)
        )
    assert [p.kpp for p in here.points] == [p.kpp for p in there.points]
    assert here.front == there.front
