"""What the user asked for: the full specification of a landscape, as it stands in its report."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from nvaudit.declare import Option, Options
from nvaudit.options import (
    ClusterOptions,
    Count,
    DataOptions,
    Encodable,
    ModelOptions,
    Positive,
    RunOptions,
    TimeOptions,
)

BatchNorm = Literal["stored", "recalibrated"]
LossOption = Literal["cross_entropy", "mse", "binary_cross_entropy"]

SPAN = 0.3
"""The default plane reaches from −SPAN to SPAN, in lengths of the weights' filters."""

GRID = 9
IMAGES = 64
PAIRS = 12


class PlaneOptions(Options):
    """The planes, and what is drawn over them."""

    title: ClassVar[str] = "Landscape"

    span: Annotated[
        Annotated[float, Field(ge=1e-9, le=100, allow_inf_nan=False)],
        Option(
            "The plane reaches from -SPAN to SPAN, in lengths of the weights' filters.",
            metavar="SPAN",
            wanted="a number above 0, at most 100",
        ),
    ] = SPAN
    grid: Annotated[
        Annotated[int, Field(ge=3, le=1001)], Option("Points along each direction.", metavar="N")
    ] = GRID
    pairs: Annotated[
        Annotated[int, Field(ge=1, le=10_000)], Option("Pairs of random directions.", metavar="N")
    ] = PAIRS
    images: Annotated[
        Count, Option("Samples that the loss is taken over, chosen at random by the seed.", metavar="N")
    ] = IMAGES
    batch_norm: Annotated[
        BatchNorm,
        Option(
            "Statistics of batch normalisations: those stored in the model, or at every point those of the "
            "samples there."
        ),
    ] = "stored"
    loss: Annotated[
        LossOption | None,
        Option(
            "What the surface shows; mse takes labels as numbers where there is one for each output, "
            "binary_cross_entropy takes a label of 0 or 1 for each.",
            unset="cross_entropy with class labels, mse with reference outputs; without labels "
            "cross_entropy with the unmodified model's decisions where its outputs are class scores, else "
            "mse with its outputs",
        ),
    ] = None


class LandscapeSpec(ClusterOptions, TimeOptions, RunOptions, DataOptions, PlaneOptions, ModelOptions):
    """One landscape, complete; only ``workers`` and ``dask`` have no influence on results.

    The fields are the options of ``nvaudit landscape``.
    """

    data: Annotated[
        Encodable | None,
        DataOptions.option(
            "data",
            help="Evaluation data, as for `audit`.",
            unset="MODEL.npz beside the model; without it the unmodified model on synthetic inputs is the "
            "reference",
        ),
    ] = None
    limit: Annotated[Count | None, DataOptions.option("limit", help="Choose among the first N samples.")] = (
        None
    )
    output_name: Annotated[
        str | None, DataOptions.option("output_name", help="Which output the loss reads.")
    ] = None
    batch_size: Annotated[Count | None, RunOptions.option("batch_size", help="Samples at a time.")] = None
    max_minutes: Annotated[
        Positive | None,
        TimeOptions.option(
            "max_minutes",
            help="Time of the whole run, which then reports the pairs of directions that are done, at "
            "least one.",
        ),
    ] = None
    dask: Annotated[
        str | None,
        ClusterOptions.option(
            "dask",
            help="Run points on the Dask cluster of this scheduler (its address, or its scheduler file).",
        ),
    ] = None

    def point_options(self) -> dict[str, JsonValue]:
        """Give every option that the loss at a point depends on, by its name on the command line.

        Left out are the inputs, known by their contents, and what :func:`task_digest` covers.
        """
        unused = {"model", "data", "workers", "dask", "span", "grid", "images", "pairs", "loss",
                  "max_minutes"}  # fmt: skip
        return self.given(name for name in LandscapeSpec.model_fields if name not in unused)


def make_landscape_spec(**options: object) -> LandscapeSpec:
    """Validate the options of a landscape at the edge; see :meth:`nvaudit.declare.Options.validated`."""
    return LandscapeSpec.validated(options)
