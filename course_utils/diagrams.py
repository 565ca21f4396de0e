"""Drawings of tensors: grids of numbers, broadcasting, reductions, views in memory, autograd's graph.

Every figure has a `title`, the finding, and an `alt`, the figure in words.
"""

import re
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from torch.autograd.graph import Node, get_gradient_edge

from course_utils.plotting import BLUE, COLORS, GREEN, ORANGE, SKY, show


def show_grids(
    tensors: Mapping[str, torch.Tensor],
    *,
    title: str,
    alt: str,
    groups: Mapping[str, int | torch.Tensor] | None = None,
    pale: Mapping[str, torch.Tensor] | None = None,
    between: Sequence[str] = (),
) -> None:
    """Draw tensors side by side as grids of numbers, each under its name and over its shape.

    Args:
        tensors: name → tensor of one to three dimensions; the slices of a third stand side by side.
        groups: name → the place in `COLORS` of each cell's colour: integers that broadcast to the
            shape. For names without an entry, the larger a number, the darker its cell.
        pale: name → bool tensor of the shape, True for cells to draw pale, as not really there.
        between: the signs between the grids, such as `["+", "="]`.

    Raises:
        ValueError: a tensor has no dimensions, more than three, or no elements.
        IndexError: a group has no place in `COLORS`.
    """
    fig = Figure()
    ax = fig.subplots()
    x = 0.0
    for i, (name, tensor) in enumerate(tensors.items()):
        if not 1 <= tensor.dim() <= 3 or tensor.numel() == 0:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: a grid shows one to three dimensions.")
        if groups and name in groups:
            colors = to_rgba_array(COLORS)[torch.as_tensor(groups[name]).expand(tensor.shape)]
        else:
            colors = _shades(tensor, "gray", 0.97, 0.12)
        if pale and name in pale:
            colors[pale[name].numpy(), 3] = 0.2
        if x:
            ax.text(x + 0.6, 0, between[i - 1] if between else "", ha="center", va="center", fontsize=16)
            x += 1.2
        top = tensor.shape[-2] / 2 if tensor.dim() > 1 else 0.5
        x = _draw(ax, x, top, tensor, colors, name, f"{tuple(tensor.shape)}")
    _show(fig, 1.0, 1.0, title, alt)


def show_broadcast(
    operands: Mapping[str, torch.Tensor], *, sign: str, result: torch.Tensor, title: str, alt: str
) -> None:
    """Draw `a sign b = result`; the cells that broadcasting only imagines are pale.

    Args:
        operands: two names → tensors of one or two dimensions whose shapes fit.
        sign: the sign between them.
        result: what the operation gave.
    """
    tensors, pale = {}, {}
    for (name, small), wide in zip(
        operands.items(), torch.broadcast_tensors(*operands.values()), strict=True
    ):
        label = f"{name} {tuple(small.shape)}"
        tensors[label] = wide
        pale[label] = torch.ones(wide.shape, dtype=torch.bool)
        pale[label][tuple(slice(1 if stride == 0 else None) for stride in wide.stride())] = False
    tensors["result"] = result
    groups = dict(zip(tensors, map(COLORS.index, (SKY, ORANGE, GREEN)), strict=True))
    show_grids(tensors, groups=groups, pale=pale, between=[sign, "="], title=title, alt=alt)


def show_reductions(x: torch.Tensor, *, title: str, alt: str) -> None:
    """Draw a tensor once for each dimension; the cells that `sum(dim=...)` adds together share a colour.

    Args:
        x: one to three dimensions; no reduction may leave more than `len(COLORS)` numbers.
    """
    groups = {}
    for dim in range(x.dim()):
        left = x.sum(dim=dim)
        places = torch.arange(left.numel()).reshape(left.shape)
        groups[f"sum(dim={dim}) → {tuple(left.shape)}"] = places.unsqueeze(dim)
    show_grids(dict.fromkeys(groups, x), groups=groups, title=title, alt=alt)


def show_storage(views: Mapping[str, torch.Tensor], *, title: str, alt: str) -> None:
    """Draw the memory that some views share, and each view with its cells in their memory's colours.

    Args:
        views: name → tensor of one or two dimensions; all share one storage and dtype.

    Raises:
        ValueError: the tensors do not share one storage and dtype.
    """
    if len({(tensor.untyped_storage().data_ptr(), tensor.dtype) for tensor in views.values()}) != 1:
        raise ValueError("these tensors do not share one storage and dtype: give views of one tensor.")
    first = next(iter(views.values()))
    size = first.untyped_storage().nbytes() // first.element_size()
    positions = torch.arange(size)
    colors = _shades(positions, "viridis", 0.25, 1.0)

    fig = Figure()
    ax = fig.subplots()
    x = 0.0
    for name, tensor in views.items():
        shape, stride, offset = tuple(tensor.shape), tensor.stride(), tensor.storage_offset()
        rule = f"shape {shape}\nstride {stride}\noffset {offset}"
        places = positions.as_strided(shape, stride, offset)
        x = max(_draw(ax, x, 0, tensor, colors[places], name, rule), x + 3) + 1.2
    memory = torch.stack([first.as_strided((size,), (1,), 0).cpu(), positions])
    colors = np.stack([colors, np.ones_like(colors)])  # the second row, the positions, is white
    _draw(ax, (x - 1.2 - size) / 2, 3.6, memory, colors, "memory, and its positions", "")
    _show(fig, 1.0, 2.2, title, alt)


def show_graph(
    outputs: torch.Tensor | Mapping[str, torch.Tensor],
    names: Mapping[str, torch.Tensor] | None = None,
    *,
    title: str,
    alt: str,
) -> None:
    """Draw the graph that autograd has recorded, as it stands: what `backward` would walk through.

    From the tensor's `grad_fn` follow `next_functions` to the leaves. A box is one such node. The boxes
    stand in the order in which they were computed, from left to right; each arrow is an entry of
    `next_functions`, and points back. Inputs that need no gradient have no node.

    Args:
        outputs: where to start; several, each with its text, are drawn below each other.
        names: name → tensor of the graph; its box gets the name, and the value or the shape.

    Raises:
        ValueError: an output has no `grad_fn`.
    """
    outputs = outputs if isinstance(outputs, Mapping) else {"": outputs}
    if any(output.grad_fn is None for output in outputs.values()):
        raise ValueError("the output has no grad_fn: nothing was recorded for it. Is it a leaf?")
    heads = {
        get_gradient_edge(x).node: f"{name} = {x.item():g}" if x.numel() == 1 else f"{name} {tuple(x.shape)}"
        for name, x in (names or {}).items()
    }
    graphs = [_layers(output.grad_fn) for output in outputs.values()]
    heights = [max(map(len, layers)) for layers in graphs]
    edge = max(4.6, *map(len, graphs)) / 2
    fig = Figure(figsize=(8, 0.95 * sum(heights) + 0.5))
    axes = fig.subplots(len(graphs), squeeze=False, height_ratios=heights).flat
    for ax, text, layers, height in zip(axes, outputs, graphs, heights, strict=True):
        ax.set(xlim=(-edge, edge), ylim=(-height / 2, height / 2))
        ax.axis("off")
        ax.text(-edge, 0.4, text, va="center", family="monospace")
        boxes = {}
        for column, layer in enumerate(layers):
            for row, node in enumerate(layer):
                x, y = column - (len(layers) - 1) / 2, (len(layer) - 1) / 2 - row
                kind = node.name().rpartition("::")[2]
                color = (GREEN, 0.25) if kind == "AccumulateGrad" else "whitesmoke"
                look = {"boxstyle": "round", "facecolor": color, "edgecolor": "none"}
                words = re.sub("(?=Backward|Grad)", "\n", kind)
                center = {"ha": "center", "va": "center", "fontsize": 9}
                boxes[node] = ax.text(x, y, words, family="monospace", bbox=look, **center)
                ax.text(x, y + 0.4, heads.get(node, ""), weight="bold", **center)
        for node, box in boxes.items():
            targets = [boxes[target] for target, _ in node.next_functions if target is not None]
            for i, target in enumerate(targets):
                arrow = {
                    "arrowstyle": "-|>", "color": BLUE, "patchA": box.get_bbox_patch(),
                    "patchB": target.get_bbox_patch(), "shrinkA": 0, "shrinkB": 0,
                    "connectionstyle": f"arc3,rad={0.2 * (2 * i - len(targets) + 1)}",
                }  # fmt: skip
                ax.annotate("", target.get_position(), box.get_position(), arrowprops=arrow)
    fig.suptitle(title)
    show(fig, alt)


def _layers(last: Node) -> list[tuple[Node, ...]]:
    """Sort a graph's nodes by their longest path from the last one; what was computed first comes first."""
    sorter, nodes, layers = TopologicalSorter({last: ()}), [last], []
    for node in nodes:  # which grows on the way
        following = [target for target, _ in node.next_functions if target is not None]
        for target in following:
            sorter.add(target, node)
        nodes += [target for target in dict.fromkeys(following) if target not in nodes]
    sorter.prepare()
    while sorter.is_active():
        layers.append(sorter.get_ready())
        sorter.done(*layers[-1])
    return layers[::-1]


def _shades(values: torch.Tensor, cmap: str, low: float, high: float) -> np.ndarray:
    """Return colours (*values.shape, 4): the smallest value's place in the colour map is `low`."""
    values = values.detach().cpu().double().numpy()
    span = values.max() - values.min() or 1.0
    return mpl.colormaps[cmap](low + (high - low) * (values - values.min()) / span)


def _draw(
    ax: Axes, x: float, top: float, tensor: torch.Tensor, colors: np.ndarray, head: str, foot: str
) -> float:
    """Draw a tensor's slices as tables of unit cells from x to the right; return where they end."""
    tables = tensor.reshape((1,) * (3 - tensor.dim()) + tuple(tensor.shape))
    _, rows, columns = tables.shape
    left = x
    for table, shades in zip(tables, colors.reshape(*tables.shape, 4), strict=True):
        ax.pcolormesh(x + np.arange(columns + 1), top - np.arange(rows + 1), shades, edgecolors="white")
        for row, column in np.ndindex(rows, columns):
            value, (*rgb, alpha) = table[row, column].item(), shades[row, column]
            ink = "gray" if alpha < 1 else "white" if np.dot(rgb, (0.299, 0.587, 0.114)) < 0.5 else "black"
            text = f"{value:.3g}" if isinstance(value, float) else str(value)
            place = x + column + 0.5, top - row - 0.5
            ax.text(*place, text, ha="center", va="center", color=ink, fontsize=9)
        x += columns + 0.4
    middle = (left + x - 0.4) / 2
    ax.text(middle, top + 0.25, head, ha="center", va="bottom", family="monospace")
    ax.text(middle, top - rows - 0.25, foot, ha="center", va="top", color="dimgray", fontsize=10)
    return x - 0.4


def _show(fig: Figure, above: float, below: float, title: str, alt: str) -> None:
    """Show tables as squares, as large as the width allows, with room for the texts above and below them."""
    (ax,) = fig.axes
    (left, low), (right, high) = ax.dataLim.get_points()
    cell = min(8 / (right - left + 0.4), 0.5)  # inches
    fig.set_size_inches(8, (high + above - low + below) * cell + 0.4)
    spare = (8 / cell - right + left) / 2
    ax.set(xlim=(left - spare, right + spare), ylim=(low - below, high + above), aspect="equal")
    ax.axis("off")
    fig.suptitle(title)
    show(fig, alt)
