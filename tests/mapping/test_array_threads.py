"""Arrays are read in several threads at a time."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nvaudit.arrays import load_array, load_arrays


def test_headers_are_read_in_many_threads(tmp_path):
    """They come as they were written, in whatever order of the memory."""
    arrays = {
        "level": np.arange(12).reshape(3, 4),
        "used": np.eye(3, dtype=bool),
        "g": np.asfortranarray(np.eye(4)),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    np.save(tmp_path / "b.npy", arrays["level"])

    def read(number):
        found = load_arrays(tmp_path / "a.npz")
        return all(np.array_equal(found[name], array) for name, array in arrays.items()) and np.array_equal(
            load_array(tmp_path / "b.npy", mmap_mode="r" if number % 2 else None), arrays["level"]
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(200)))


def test_what_is_no_array_is_refused(tmp_path):
    """Objects, and members that are something else."""
    np.savez(tmp_path / "o.npz", o=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        load_arrays(tmp_path / "o.npz")
