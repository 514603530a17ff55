"""What a request's members become in a function's configuration."""

from __future__ import annotations

from typing import Any

from runtimed.model.function import FunctionConfiguration, SnapStart, SnapStartOptimizationStatus, SnapStartResponse


def member(value: Any) -> Any:
    if isinstance(value, SnapStart):
        return SnapStartResponse(apply_on=value.apply_on, optimization_status=SnapStartOptimizationStatus.OFF)
    return value


def members(request: object) -> dict[str, Any]:
    """Those that a configuration has too."""
    names = FunctionConfiguration.__struct_fields__
    return {name: member(getattr(request, name)) for name in names if hasattr(request, name)}
