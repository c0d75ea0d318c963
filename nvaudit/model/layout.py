"""Moves between the layouts of one weight.

A weight has a stored layout, a primary one (that in which the first operator takes it, and in which every
array of numbers of a :class:`nvaudit.model.Weight` is), one for each open place of a template, and it is a
matrix of rows and columns on its crossbars. A :class:`Layout` leads from one of these to another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

Shape = tuple[int, ...]
Move = tuple[str, Shape]
Values = TypeVar("Values")


def _only(values: Any, axis: int, start: int, stop: int) -> Any:
    kept = np.zeros_like(values)
    inside = (slice(None),) * axis + (slice(start, stop),)
    kept[inside] = values[inside]
    return kept


class Layout(tuple[Move, ...]):
    """A chain of moves, first move first.

    ``("transpose", permutation)`` and ``("reshape", shape)`` as numpy has them, ``("slice", (axis, start,
    stop))`` for a part along one axis, and ``("keep", (axis, start, stop))``, which puts zeros outside that
    part. The first two keep every element, so that chains of these have an inverse.
    """

    __slots__ = ()

    def apply(
        self,
        values: Values,
        transpose: Callable[[Any, Shape], Any] = np.transpose,
        keep: Callable[[Any, int, int, int], Any] = _only,
    ) -> Values:
        """Lay values out.

        Parameters
        ----------
        values : ndarray
            Of the shape from which the moves lead; or a tensor of another library, whose functions for the
            second and fourth move are then given.
        transpose, keep : callable
            Of values and a permutation; of values, axis, start and stop.

        Returns
        -------
        ndarray
            A view where that is possible; never the caller's memory changed.

        Examples
        --------
        >>> Layout([("transpose", (1, 0)), ("reshape", (6,))]).apply(np.arange(6).reshape(2, 3))
        array([0, 3, 1, 4, 2, 5])
        """
        moved: Any = values
        for kind, argument in self:
            if kind == "transpose":
                moved = transpose(moved, argument)
            elif kind == "reshape":
                moved = moved.reshape(argument)
            elif kind == "slice":
                axis, start, stop = argument
                moved = moved[(slice(None),) * axis + (slice(start, stop),)]
            else:
                moved = keep(moved, *argument)
        return moved  # type: ignore[no-any-return]

    def then(self, *more: Sequence[Move]) -> Layout:
        """Further moves behind these."""
        return Layout([*self, *(move for moves in more for move in moves)])

    def shape(self, start: Shape) -> Shape:
        """The shape to which the moves lead from one."""
        for move in self:
            start = _shape_after(start, move)
        return start

    def inverse(self, start: Shape) -> Layout:
        """The moves back to ``start``, the shape from which these lead.

        Raises
        ------
        ValueError
            If a move loses elements.
        """
        moves: list[Move] = []
        for kind, argument in self:
            if kind not in ("transpose", "reshape"):
                raise ValueError(f"the move {kind!r} loses elements and has no inverse")
            # The inverse of a permutation is its argsort; that of a reshape is the shape before it.
            back = tuple(map(int, np.argsort(argument))) if kind == "transpose" else start
            moves.insert(0, (kind, back))
            start = _shape_after(start, (kind, argument))
        return Layout(moves)

    def simplified(self, start: Shape) -> Layout:
        """The same with neighbouring moves merged, and without those that move nothing from ``start`` on.

        Examples
        --------
        >>> Layout([("transpose", (1, 0)), ("transpose", (1, 0))]).simplified((2, 3))
        Layout(())
        """
        merged: list[Move] = []
        for kind, argument in self:
            if merged and merged[-1][0] == kind and kind in ("transpose", "reshape"):
                before = merged.pop()[1]
                argument = tuple(before[axis] for axis in argument) if kind == "transpose" else argument
            merged.append((kind, argument))
        shape, moves = start, []
        for move in merged:
            after = _shape_after(shape, move)
            idle = move[1] == tuple(range(len(shape))) if move[0] == "transpose" else after == shape
            if not idle or move[0] == "keep":
                moves.append(move)
            shape = after
        # A move that went may leave two neighbours that can be merged.
        return Layout(moves) if len(moves) == len(self) else Layout(moves).simplified(start)

    def with_devices(self, count: int) -> Layout:
        """The same moves of several such arrays at once, stacked along a new first axis."""
        moves: list[Move] = []
        for kind, argument in self:
            if kind == "transpose":
                moves.append((kind, (0, *(axis + 1 for axis in argument))))
            elif kind == "reshape":
                moves.append((kind, (count, *argument)))
            else:
                moves.append((kind, (argument[0] + 1, *argument[1:])))
        return Layout(moves)

    def __repr__(self) -> str:
        return f"Layout({tuple(self)!r})"


UNMOVED = Layout()


def matrix_layout(shape: Shape, columns: Sequence[int]) -> Layout:
    """From a shape to a matrix: the given axes, in that order, count its columns, the others its rows.

    Examples
    --------
    >>> matrix_layout((8, 4, 3, 3), (0,))
    Layout((('transpose', (1, 2, 3, 0)), ('reshape', (36, 8))))
    """
    last = [axis % len(shape) for axis in columns] if shape else []
    order = (*(axis for axis in range(len(shape)) if axis not in last), *last)
    rows = int(np.prod([shape[axis] for axis in order[: len(order) - len(last)]], dtype=np.int64))
    cols = int(np.prod([shape[axis] for axis in last], dtype=np.int64))
    return Layout([("transpose", order), ("reshape", (rows, cols))])


def _shape_after(shape: Shape, move: Move) -> Shape:
    kind, argument = move
    if kind == "transpose":
        return tuple(shape[axis] for axis in argument)
    if kind == "reshape":
        return argument
    if kind == "keep":
        return shape
    axis, start, stop = argument
    return (*shape[:axis], stop - start, *shape[axis + 1 :])
