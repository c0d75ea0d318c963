"""Specifications at one operating point: one value where an audit takes a list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer

from nvaudit.declare import fields_of
from nvaudit.errors import OptionError
from nvaudit.options import ChipOptions, DeviceOptions


class OnePoint(ChipOptions, DeviceOptions):
    """A specification at one operating point and of one percentile.

    What is a list in an audit may be given as one value, ``sigma=0.1``, and stands so in reports.
    """

    one: ClassVar[Mapping[str, str]] = {"sigmas": "sigma", "percentiles": "percentile"}
    """Fields that are one value or called otherwise for a caller and in reports, with that name."""

    @property
    def percentile(self) -> float:
        """Of the KPP."""
        (percentile,) = self.percentiles
        return percentile

    @classmethod
    def validated(cls, options: Mapping[str, object]) -> Self:
        """Validate options at the edge, under either name.

        Raises
        ------
        OptionError
            Naming each option that is wrong, what was found, and what is allowed.
        """
        options = dict(options)
        for name, called in cls.one.items():
            if name in options and called in options:
                raise OptionError(f"{name} and {called}: choose one; they say the same")
            field = fields_of(cls)[name]
            if called in options:
                options[name] = options.pop(called)
            if name not in options or not field.is_list:
                continue
            if options[name] is None and field.default == ():
                options[name] = ()
            value = options[name]
            values = tuple(value) if isinstance(value, tuple | list) else (value,)
            if len(values) > 1:
                raise OptionError(f"{field.flag}: got {len(values)} values; give one")
            options[name] = values
        return super().validated(options)

    @classmethod
    def called(cls, name: str) -> str:
        """Name of a field for a caller, and in reports."""
        return cls.one.get(name, name)

    @classmethod
    def flag(cls, name: str) -> str:
        """Name of a field, or of one value of it, on the command line."""
        return super().flag(next((field for field, called in cls.one.items() if called == name), name))

    @model_serializer(mode="wrap")
    def _as_one(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {self.called(name): self._single(name, value) for name, value in values.items()}

    def _single(self, name: str, value: Any) -> Any:
        if name not in self.one or not isinstance(value, tuple | list):
            return value
        return value[0] if value else None
