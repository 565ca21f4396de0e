"""Values and errors as short lines of text, as a verdict shows them."""

import itertools
import math
import re
import reprlib
from typing import Any

import numpy as np
import torch

WIDTH = 200  # characters in a printed line


def show(value: Any, most: int = WIDTH - 12) -> str:
    """One short line for a value: small tensors in full, large ones by shape and dtype."""
    text = " ".join(_ONE_LINE.repr(value).split())
    return cut(re.sub(r" at 0x[0-9a-fA-F]+", "", text), most)


class _OneLine(reprlib.Repr):
    """Python's own short form of nested and long values, which also knows tensors."""

    def __init__(self) -> None:
        super().__init__()  # sets Python's own limits, as attributes of the object
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict, self.maxset = 4, 24, 24, 8, 8
        self.maxstring, self.maxlong, self.maxother = 80, 40, 300

    def repr1(self, value: Any, level: int) -> str:
        if isinstance(value, (torch.Tensor, np.ndarray)):
            dense = value.layout == torch.strided if isinstance(value, torch.Tensor) else True
            if dense and math.prod(value.shape) <= 24 and not getattr(value, "is_meta", False):
                return repr(value)
            text = (
                f"{kind_of(value)} of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
            )
            return text if dense else f"{text}, {str(value.layout).removeprefix('torch.')}"
        try:
            return super().repr1(value, level)
        except Exception:  # noqa: BLE001 - an object may do anything, and a number have too many digits
            return f"<{type(value).__name__}>"

    def repr_dict(self, value: dict, level: int) -> str:
        """As Python's own, which would sort the keys: their order may matter."""
        if not value or level <= 0:
            return "{...}" if value else "{}"
        items = itertools.islice(value.items(), self.maxdict)
        pieces = [f"{self.repr1(key, level - 1)}: {self.repr1(item, level - 1)}" for key, item in items]
        return "{" + ", ".join(pieces + ["..."] * (len(value) > self.maxdict)) + "}"

    def repr_instance(self, value: Any, level: int) -> str:
        """The start of an object's own text; `repr1` sees to one that fails."""
        return cut(repr(value), self.maxother)


_ONE_LINE = _OneLine()


def number_text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, (float, complex)) else show(value, 60)


def kind_of(value: Any) -> str:
    """A value's type with its article: `a tensor`, `an int`."""
    if value is None:
        return "None"
    if type(value).__module__ == "torch.return_types" and hasattr(value, "indices"):
        return "a pair (values, indices)"
    name = {torch.Tensor: "tensor", np.ndarray: "NumPy array"}.get(type(value), type(value).__name__)
    return f"an {name}" if name[0] in "aeio" else f"a {name}"


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def labelled(label: str, text: str) -> str:
    return f"  {label:<9} {cut(text, 2 * WIDTH if label == 'why' else WIDTH - 12)}"
