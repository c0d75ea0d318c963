"""Calls on a Dask cluster: the same interface as worker processes, on many machines."""
