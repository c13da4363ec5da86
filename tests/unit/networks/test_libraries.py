"""The libraries of networks are imported without the compiler of torch, which only `train.compile` needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = """
import sys, torch
from assay.networks.libraries import import_timm, import_torchvision
disable = torch.compiler.disable
import_timm()
import timm, torchvision
assert timm.create_model("resnet10t").eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
assert torch.compiler.disable is disable
assert not any(name.startswith("torch._dynamo") for name in sys.modules), "the compiler was imported"
"""
LATER = """
import torch
from assay.networks.libraries import _disable_later, import_torchvision
import_torchvision()
called = _disable_later(lambda x, y: x - y, recursive=False)
assert called(5, y=3) == 2
from torchvision.ops import roi_align
from torchvision.ops.roi_align import is_compile_supported
import torch._dynamo.utils
assert is_compile_supported("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
assert roi_align(torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 4, 4]]), 1).shape == (1, 1, 1, 1)
"""
REAL_IN_BETWEEN = """
import sys
from types import ModuleType
from assay.networks import libraries
stand_in = libraries._Later(libraries._COMPILER)
sys.modules[libraries._COMPILER] = stand_in
import torch._dynamo
assert torch._dynamo.utils.counters is stand_in.counters
assert sys.modules[libraries._COMPILER] is not stand_in
"""
COMPILED = """
import torch._dynamo
from assay.networks.libraries import import_timm, import_torchvision
import_timm()
import_torchvision()
import timm, torchvision
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(WITHOUT, id="without"),
        pytest.param(LATER, id="later"),
        pytest.param(REAL_IN_BETWEEN, id="in between"),
        pytest.param(COMPILED, id="compiled"),
    ],
)
def test_importing_the_libraries(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
