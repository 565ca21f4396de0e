"""Drawings of tensors: grids of numbers, broadcasting, reductions, views in memory, autograd's graph."""

import re
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
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
        title, alt: the finding, and the figure in words.
        groups: name → the place in `COLORS` of each cell's colour: one integer for all cells, or an
            integer tensor that broadcasts to the shape, where -1 leaves a cell blank. For names
            without an entry, the larger a number, the darker its cell.
        pale: name → bool tensor of the shape, True for cells to draw pale, as not really there.
        between: the signs between the grids, such as `["+", "="]`.

    Raises:
        ValueError: a tensor has no dimensions, more than three, or no elements.
    """
    for name, tensor in tensors.items():
        if not 1 <= tensor.dim() <= 3 or tensor.numel() == 0:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: a grid shows one to three dimensions.")
    fig, ax = plt.subplots()
    x, tallest, signs = 0.0, 0, iter(between)
    for name, tensor in tensors.items():
        if x:
            ax.text(x + 0.6, 0, next(signs, ""), ha="center", va="center", fontsize=16)
            x += 1.2
        left = x
        cells = _as_tables(tensor)
        colors = _as_tables(_colors(tensor, (groups or {}).get(name)), trailing=1)
        fades = _as_tables((pale or {}).get(name, torch.zeros(tensor.shape, dtype=torch.bool)))
        for table, color, fade in zip(cells, colors, fades, strict=True):
            _draw_cells(ax, x, len(table) / 2, table, color, fade)
            x += table.shape[1] + 0.4
        x -= 0.4
        edge = cells.shape[1] / 2 + 0.25
        ax.text((left + x) / 2, edge, name, ha="center", va="bottom", family="monospace")
        ax.text((left + x) / 2, -edge, f"{tuple(tensor.shape)}", ha="center", va="top", color="dimgray")
        tallest = max(tallest, cells.shape[1])
    _fit(fig, ax, (0, x), (-tallest / 2 - 0.9, tallest / 2 + 0.9), title)
    show(fig, alt)


def show_broadcast(
    operands: Mapping[str, torch.Tensor], *, sign: str, result: torch.Tensor, title: str, alt: str
) -> None:
    """Draw `a sign b = result`; the cells that broadcasting only imagines are pale.

    Args:
        operands: two names → tensors of one or two dimensions whose shapes fit.
        sign: the sign between them.
        result: what the operation gave.
        title, alt: the finding, and the figure in words.
    """
    tensors, imagined = {}, {}
    wides = torch.broadcast_tensors(*operands.values())
    for (name, small), wide in zip(operands.items(), wides, strict=True):
        label = f"{name} {tuple(small.shape)}"
        padded = (1,) * (wide.dim() - small.dim()) + tuple(small.shape)
        imagined[label] = torch.ones(wide.shape, dtype=torch.bool)
        imagined[label][tuple(slice(n) for n in padded)] = False
        tensors[label] = wide
    tensors["result"] = result
    groups = dict(zip(tensors, (COLORS.index(SKY), COLORS.index(ORANGE), COLORS.index(GREEN)), strict=True))
    show_grids(tensors, groups=groups, pale=imagined, between=[sign, "="], title=title, alt=alt)


def show_reductions(x: torch.Tensor, *, title: str, alt: str) -> None:
    """Draw a tensor once for each dimension; the cells that `sum(dim=...)` adds together share a colour.

    Args:
        x: one to three dimensions; no reduction may leave more than `len(COLORS)` numbers.
        title, alt: the finding, and the figure in words.

    Raises:
        ValueError: `x` is too large for the colours.
    """
    groups = {}
    for dim, size in enumerate(x.shape):
        left = x.numel() // size
        if left > len(COLORS):
            raise ValueError(f"sum(dim={dim}) leaves {left} numbers, but there are {len(COLORS)} colours.")
        name = f"sum(dim={dim}) → {(*x.shape[:dim], *x.shape[dim + 1 :])}"
        groups[name] = torch.arange(left).reshape((*x.shape[:dim], 1, *x.shape[dim + 1 :]))
    show_grids(dict.fromkeys(groups, x), groups=groups, title=title, alt=alt)


def show_storage(views: Mapping[str, torch.Tensor], *, title: str, alt: str) -> None:
    """Draw the memory that some views share, and each view with its cells in their memory's colours.

    Args:
        views: name → tensor of one or two dimensions; all share one storage and dtype.
        title, alt: the finding, and the figure in words.

    Raises:
        ValueError: the tensors do not share one storage and dtype, have other dimensions, or are empty.
    """
    if len({(tensor.untyped_storage().data_ptr(), tensor.dtype) for tensor in views.values()}) != 1:
        raise ValueError("these tensors do not share one storage and dtype: give views of one tensor.")
    for name, tensor in views.items():
        if not 1 <= tensor.dim() <= 2 or tensor.numel() == 0:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected one or two dimensions.")
    first = next(iter(views.values()))
    size = first.untyped_storage().nbytes() // first.element_size()
    positions = torch.arange(size)
    shades = torch.tensor(plt.get_cmap("viridis")((0.25 + 0.75 * positions / max(size - 1, 1)).numpy()))[
        :, :3
    ]

    fig, ax = plt.subplots()
    x, tallest = 0.0, 0
    for name, tensor in views.items():
        table = torch.atleast_2d(tensor)
        places = torch.atleast_2d(
            positions.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        )
        _draw_cells(ax, x, 0, table, shades[places])
        middle = x + table.shape[1] / 2
        ax.text(middle, 0.2, name, ha="center", va="bottom", family="monospace")
        rule = f"shape {tuple(tensor.shape)}\nstride {tensor.stride()}\noffset {tensor.storage_offset()}"
        ax.text(middle, -len(table) - 0.2, rule, ha="center", va="top", color="dimgray", fontsize=9)
        x += max(table.shape[1], 3) + 1.2
        tallest = max(tallest, len(table))
    x -= 1.2
    left = (x - size) / 2
    _draw_cells(ax, left, 3.2, first.as_strided((1, size), (size, 1), 0), shades[None])
    ax.text(left - 0.2, 2.7, "memory", ha="right", va="center", family="monospace")
    ax.text(left - 0.2, 1.9, "position", ha="right", va="center", color="dimgray", fontsize=8)
    for i in range(size):
        ax.text(left + i + 0.5, 1.9, str(i), ha="center", va="center", color="dimgray", fontsize=8)
    _fit(fig, ax, (min(0, left - 2.6), max(x, left + size)), (-tallest - 2.1, 3.4), title)
    show(fig, alt)


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
        title, alt: the finding, and the figure in words.

    Raises:
        ValueError: an output has no `grad_fn`, or its graph has more than 40 nodes.
    """
    rows = outputs if isinstance(outputs, Mapping) else {"": outputs}
    labels = {get_gradient_edge(t).node: _named(n, t) for n, t in (names or {}).items()}
    graphs = []
    for output in rows.values():
        if output.grad_fn is None:
            raise ValueError("the output has no grad_fn: nothing was recorded for it. Is it a leaf?")
        graphs.append(_layers(output.grad_fn))
    columns = max(map(len, graphs))
    pitch = min(8 / columns, 1.75)  # inches from column to column
    heights = [max(map(len, layers)) for layers in graphs]
    fig, ax = plt.subplots(figsize=(8, sum(0.95 * h for h in heights) + 0.5))
    top = 0.0
    for (text, _), layers, height in zip(rows.items(), graphs, heights, strict=True):
        _draw_graph(ax, layers, labels, text, columns, pitch, top - 0.95 * height / 2)
        top -= 0.95 * height
    ax.set(xlim=(-4, 4), ylim=(top, 0), aspect="equal")
    ax.axis("off")
    fig.suptitle(title)
    show(fig, alt)


def _layers(last: Node) -> list[list[Node]]:
    """Sort the nodes by their longest path from `last`; the layer computed first comes first."""
    depth: dict[Node, int] = {}

    def visit(node: Node, steps: int) -> None:
        if depth.get(node, -1) < steps:
            depth[node] = steps
            if len(depth) > 40:
                raise ValueError("the graph has more than 40 nodes: draw that of a smaller computation.")
            for following, _ in node.next_functions:
                if following is not None:
                    visit(following, steps + 1)

    visit(last, 0)
    layers: list[list[Node]] = [[] for _ in range(max(depth.values()) + 1)]
    for node, steps in depth.items():
        layers[steps].append(node)
    return layers[::-1]


def _draw_graph(
    ax: Axes,
    layers: list[list[Node]],
    labels: Mapping[Node, str],
    text: str,
    columns: int,
    pitch: float,
    middle: float,
) -> None:
    """Draw one graph; `middle` is the height of its centre line, and all is measured in inches."""
    left = -pitch * (columns - 1) / 2
    places = {
        node: (left + pitch * column, middle + 0.95 * ((len(layer) - 1) / 2 - row) - 0.05)
        for column, layer in enumerate(layers)
        for row, node in enumerate(layer)
    }
    width, height = 0.84 * pitch, 0.42
    for node, (x, y) in places.items():
        kind = node.name().rpartition("::")[2]
        style = (
            {"facecolor": GREEN, "alpha": 0.25} if kind == "AccumulateGrad" else {"facecolor": "whitesmoke"}
        )
        box = ((x - width / 2, y - height / 2), width, height, "round,pad=0,rounding_size=0.08")
        ax.add_patch(FancyBboxPatch(*box, linewidth=0, **style))
        words = re.sub(r"(?=Backward|Grad)", "\n", kind, count=1) if width < 1.3 else kind
        ax.text(x, y, words, ha="center", va="center", fontsize=9, family="monospace", linespacing=1.1)
        name = labels.get(node, "")
        ax.text(x, y + height / 2 + 0.05, name, ha="center", va="bottom", weight="bold", fontsize=9.5)
        targets = [following for following, _ in node.next_functions if following is not None]
        for i, target in enumerate(targets):
            (a, b), shift = places[target], 0.2 * (i - (len(targets) - 1) / 2)  # keeps x * x's arrows apart
            arrow = {"arrowstyle": "-|>", "color": BLUE, "shrinkA": 0, "shrinkB": 0, "linewidth": 1.3}
            ax.annotate("", (a + width / 2, b - shift), (x - width / 2, y - shift), arrowprops=arrow)
    if text:
        ax.text(-4, middle + 0.36, text, ha="left", va="center", family="monospace", fontsize=9.5)


def _named(name: str, tensor: torch.Tensor) -> str:
    """A tensor's name with its value or, if it has several, its shape."""
    return f"{name} = {tensor.item():g}" if tensor.numel() == 1 else f"{name} {tuple(tensor.shape)}"


def _as_tables(tensor: torch.Tensor, trailing: int = 0) -> torch.Tensor:
    """Give a tensor leading dimensions of size 1 until it has three, not counting `trailing` last ones."""
    return tensor.reshape((1,) * (3 + trailing - tensor.dim()) + tuple(tensor.shape))


def _colors(tensor: torch.Tensor, group: int | torch.Tensor | None) -> torch.Tensor:
    """Return each cell's colour, shape (*tensor.shape, 3): by group, or darker the larger the number."""
    if group is None:
        values = tensor.detach().cpu().double()
        span = (values.max() - values.min()).item() or 1.0
        return (0.97 - 0.85 * (values - values.min()) / span).unsqueeze(-1).expand(*tensor.shape, 3)
    palette = torch.tensor([to_rgb(color) for color in (*COLORS, "whitesmoke")])  # -1 is the last
    return palette[torch.as_tensor(group).expand(tensor.shape)]


def _draw_cells(
    ax: Axes, x: float, y: float, values: torch.Tensor, colors: torch.Tensor, pale: torch.Tensor | None = None
) -> None:
    """Draw a table of unit cells, (H, W) with colours (H, W, 3), whose upper left corner is (x, y)."""
    fades = torch.zeros(values.shape, dtype=torch.bool) if pale is None else pale
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            color, fade = colors[i, j].tolist(), bool(fades[i, j])
            dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 0.5
            color, ink = (
                ([0.8 + 0.2 * c for c in color], "gray") if fade else (color, "white" if dark else "black")
            )
            frame = Rectangle(
                (x + j, y - i - 1), 1, 1, facecolor=color, edgecolor="lightgray" if fade else "white"
            )
            ax.add_patch(frame)
            text = f"{value:.3g}" if isinstance(value, float) else str(value)
            ax.text(x + j + 0.5, y - i - 0.5, text, ha="center", va="center", color=ink, fontsize=9)


def _fit(
    fig: Figure, ax: Axes, widths: tuple[float, float], heights: tuple[float, float], title: str
) -> None:
    """Size the figure so that every cell is a square of the same size, as far as the width allows."""
    (left, right), (low, high) = widths, heights
    cell = min(8 / (right - left + 0.4), 0.5)  # inches
    fig.set_size_inches(8, (high - low) * cell + 0.4)
    spare = (8 / cell - (right - left)) / 2
    ax.set(xlim=(left - spare, right + spare), ylim=(low, high), aspect="equal")
    ax.axis("off")
    fig.suptitle(title)
