"""timm and torchvision, imported without torch's compiler, which takes three of the four seconds of the import.

If the compiler is imported already, as with `train.compile`, they are imported as usual.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

_COMPILER = "torch._dynamo.utils"


def import_torchvision() -> None:
    """Call this before any import of torchvision, which imports the compiler for one function, called on GPUs only."""
    if "torchvision" in sys.modules or _COMPILER in sys.modules:
        return
    stand_in = _Later(_COMPILER)
    sys.modules[_COMPILER] = stand_in
    try:
        importlib.import_module("torchvision")
    finally:
        if sys.modules.get(_COMPILER) is stand_in:
            del sys.modules[_COMPILER]


def import_timm() -> None:
    """Call this before any import of timm, which imports the compiler to keep it away from one method."""
    import_torchvision()
    if "timm" in sys.modules or _COMPILER in sys.modules:
        return
    real = torch.compiler.disable
    torch.compiler.disable = _disable_later  # type: ignore[assignment]
    try:
        importlib.import_module("timm")
    finally:
        torch.compiler.disable = real


class _Later(ModuleType):
    """Stands in for a module until something in it is used."""

    def __getattr__(self, name: str) -> Any:
        if name == "is_compile_supported":
            return _is_compile_supported
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _is_compile_supported(device_type: str) -> bool:
    supported: bool = importlib.import_module(_COMPILER).is_compile_supported(device_type)
    return supported


def _disable_later(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Do what `torch.compiler.disable` does, but at the first call of the function instead of now."""

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        return torch.compiler.disable(function, **options)(*args, **named)  # type: ignore[no-untyped-call]

    return call
