"""Helpers for the course *PyTorch, from Tensors to Out-of-Memory*.

`import course_utils` loads torch and nothing heavy beyond it; what needs torchvision, matplotlib
or IPython lives in modules that import them when you ask for them (`course_utils.plotting`, ...).
"""

from course_utils.device import get_device, seed_everything
from course_utils.reporting import approx, expect_error, expect_warning

__all__ = ["approx", "expect_error", "expect_warning", "get_device", "seed_everything"]
