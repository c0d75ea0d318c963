"""A landscape on a Dask cluster is the one that this machine makes."""

import landscape_models as models
import numpy as np
import pytest

pytest.importorskip("distributed", reason="Dask is an extra")

from dask_hosts import local_cluster

from nvaudit import landscape
from nvaudit.errors import OptionError

SMALL = {"grid": 3, "pairs": 1, "images": 16, "span": 0.5}


@pytest.mark.slow
def test_a_cluster_does_not_matter(tmp_path):
    """Points run where the files are not seen, also without labels, and the surface is the same bits."""
    model, data = models.mlp(tmp_path / "mlp.onnx"), models.save_data(tmp_path / "d.npz", (6,))
    (tmp_path / "cluster").mkdir()
    with local_cluster(tmp_path / "cluster", ["blind"]) as cluster:
        for source in (data, None):
            here, there = (landscape(model, source, dask=dask, **SMALL) for dask in (None, cluster.address))
            assert np.array_equal(here.surface.losses, there.surface.losses)


def test_a_cluster_that_is_not_there(tmp_path):
    """The address is tried before anything is read."""
    with pytest.raises(OptionError, match=r"nowhere\.json"):
        landscape(tmp_path / "missing.onnx", dask=str(tmp_path / "nowhere.json"), **SMALL)
