"""Nothing between the steps that a GPU would have to wait for."""

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from tests.architectures import tiny_model  # noqa: F401
