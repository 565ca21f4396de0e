"""The course's figures: images, grids of numbers, where a view's numbers lie, points, bars, timelines.

Every figure ends in `show(fig, alt)`: one style, labelled axes, and a text alternative under it.
"""

import base64
import io
import itertools
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, RED, GREY = (  # Okabe and Ito: told apart by colour-blind readers
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#D55E00", "#999999",
)  # fmt: skip
LARGE = 64_000  # bytes of a picture that is to be stored with fewer colours
COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, RED, GREY)

plt.rcParams.update(
    {
        "figure.dpi": 100,
        "figure.figsize": (8, 3.5),
        "figure.constrained_layout.use": True,
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.prop_cycle": plt.cycler(color=COLORS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "image.cmap": "gray_r",
    }
)


def show(fig: Figure, alt: str) -> None:
    """Display a figure, and under it `alt`, which tells in words what the figure shows; close it.

    The words serve readers who cannot see the picture, and the tests, which compare them.

    Raises:
        ValueError: `alt` is empty, or axes that are switched on lack a label.
    """
    try:
        if not alt.strip():
            raise ValueError("alt is empty: say in words what the figure shows.")
        for ax in fig.axes:
            if ax.axison and not (ax.get_xlabel() and ax.get_ylabel()):
                raise ValueError("a plot lacks an axis label: set xlabel and ylabel, or ax.axis('off').")
        png = io.BytesIO()
        fig.savefig(png, format="png", metadata={"Software": None})
    finally:
        plt.close(fig)
    picture = base64.b64encode(_compact(png.getvalue())).decode("ascii")
    display({"image/png": picture, "text/plain": f"Figure: {alt}"}, raw=True)
    display(Markdown(f"*Figure: {alt}*"))


def _compact(png: bytes) -> bytes:
    """Store a large picture, such as one of photographs, with 256 colours of its own: a third of the size."""
    if len(png) < LARGE:
        return png
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    sample = picture.resize((picture.width // 3, picture.height // 3), Image.Resampling.NEAREST)
    colors = sample.quantize(255, Image.Quantize.MAXCOVERAGE, kmeans=2)
    colors.putpalette([*colors.getpalette()[: 255 * 3], 255, 255, 255])
    result = picture.quantize(palette=colors, dither=Image.Dither.NONE)
    paper = (np.asarray(picture) == 255).all(axis=2)  # is mapped to a neighbour of white: make it white
    result.paste(255, mask=Image.fromarray(paper))
    small = io.BytesIO()
    result.save(small, format="png")
    return small.getvalue()


def show_images(
    images: torch.Tensor, titles: Sequence[object] | None = None, *, title: str, alt: str, columns: int = 8
) -> None:
    """Show a batch of images in rows, dark ink on white for one channel.

    Args:
        images: (N, H, W), (N, 1, H, W) or (N, 3, H, W); uint8 from 0 to 255, or floats from 0 to 1.
            One-channel images may have any range: the smallest value is white, the largest black.
        titles: a text for each image.
        title, alt: the finding, and the figure in words.
        columns: how many images stand in a row.

    Raises:
        TypeError: `images` is no tensor, or of a dtype that is no image.
        ValueError: wrong shape, no image at all, values that are not finite, colours outside their
            range, or another number of titles than of images.
    """
    pictures = _checked_images(images)
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(titles)} titles for {len(pictures)} images: give one for each.")
    if columns < 1:
        raise ValueError(f"columns={columns}: at least one image must stand in a row.")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    height = 8 / max(columns, 5) * rows * (1.25 if titles is not None else 1.0)
    fig, axes = plt.subplots(rows, columns, figsize=(8, height + 0.4), squeeze=False)
    limits = {"vmin": pictures.min(), "vmax": pictures.max()} if pictures.ndim == 3 else {}
    for ax in axes.flat:
        ax.axis("off")
    for i, (ax, picture) in enumerate(zip(axes.flat, pictures, strict=False)):
        ax.imshow(picture, interpolation="nearest", **limits)
        if titles is not None:
            ax.set_title(str(titles[i]), fontsize=10)
    fig.suptitle(title)
    show(fig, alt)


def _checked_images(images: torch.Tensor):
    """Return the images as a NumPy array (N, H, W) or (N, H, W, 3), or say what is wrong with them."""
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"images is a {type(images).__name__}: give a tensor, for example by torch.stack.")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"images are {images.dtype}: give uint8 (0 to 255) or floats (0 to 1).")
    shape = tuple(images.shape)
    if not (len(shape) == 3 or (len(shape) == 4 and shape[1] in (1, 3))) or 0 in shape:
        hint = " Channels come first: use images.permute(0, 3, 1, 2)." if shape[3:] in ((1,), (3,)) else ""
        hint = " For one image, add the batch dimension: image.unsqueeze(0)." if len(shape) == 2 else hint
        raise ValueError(
            f"images have shape {shape}: expected (N, H, W), (N, 1, H, W) or (N, 3, H, W).{hint}"
        )
    if not torch.isfinite(images).all():
        raise ValueError("images hold NaN or infinity: look for a division by zero before the plot.")
    images = images.detach().cpu()
    if len(shape) == 3 or shape[1] == 1:
        images = images if images.dtype == torch.uint8 else images.float()
        return images.reshape(shape[0], *shape[-2:]).numpy()
    if images.is_floating_point() and (images.min() < 0 or images.max() > 1):
        low, high = images.min().item(), images.max().item()
        raise ValueError(
            f"colours reach from {low:.3g} to {high:.3g}: bring floats to 0 to 1 (undo the normalisation)."
        )
    return images.permute(0, 2, 3, 1).float().div(255 if images.dtype == torch.uint8 else 1).numpy()


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


def show_scatter(
    x: torch.Tensor,
    y: torch.Tensor,
    labels: torch.Tensor,
    names: Sequence[str],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    alt: str,
) -> None:
    """Draw points in the plane; each class has a colour and a marker of its own.

    Args:
        x, y: (N,) each.
        labels: (N,), the place of each point's class in `names`.
        names: the classes.
        xlabel, ylabel: what the axes show, with units.
        title, alt: the finding, and the figure in words.
    """
    fig, ax = plt.subplots()
    for label, (name, marker) in enumerate(zip(names, itertools.cycle("o^sDvP*X"))):
        chosen = labels == label
        ax.scatter(x[chosen].numpy(), y[chosen].numpy(), s=30, alpha=0.7, marker=marker, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend(frameon=False)
    fig.suptitle(title)
    show(fig, alt)


def show_bars(
    groups: Mapping[str, Sequence[float]],
    names: Sequence[str],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    alt: str,
) -> None:
    """Draw a group of bars for each name, with a bar of each series in it, and the number over each bar.

    Args:
        groups: the series: what it is → a number for each of `names`.
        names: what stands under the groups of bars.
        xlabel, ylabel: what the axes show, with units.
        title, alt: the finding, and the figure in words.

    Raises:
        ValueError: a series has another number of values than there are names.
    """
    if wrong := [key for key, values in groups.items() if len(values) != len(names)]:
        raise ValueError(f"{', '.join(wrong)}: give {len(names)} values, one for each name.")
    fig, ax = plt.subplots()
    width = 0.8 / len(groups)
    for i, (key, values) in enumerate(groups.items()):
        places = [n + (i + 0.5) * width - 0.4 for n in range(len(names))]
        ax.bar_label(
            ax.bar(places, list(map(float, values)), width * 0.95, label=key), fmt="{:.3g}", padding=2
        )
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if len(groups) > 1:
        fig.legend(loc="outside right upper", frameon=False)
    fig.suptitle(title)
    show(fig, alt)


def show_timeline(
    rows: Mapping[str, Sequence[tuple[float, float, str]]], *, xlabel: str, title: str, alt: str
) -> None:
    """Draw who does what when: a row for each worker, a box for each piece of work.

    Args:
        rows: who → pieces of work (start, duration, text). The first word of the text gives the colour.
        xlabel: what the time is counted in.
        title, alt: the finding, and the figure in words.
    """
    fig, ax = plt.subplots(figsize=(8, 0.55 * len(rows) + 1.1))
    kinds: dict[str, str] = {}
    for place, pieces in enumerate(rows.values()):
        for start, duration, text in pieces:
            color = kinds.setdefault(text.split()[0], (SKY, ORANGE, GREEN, PINK)[len(kinds) % 4])
            ax.barh(-place, duration, 0.75, left=start, color=color, edgecolor="white")
            ax.text(
                start + duration / 2, -place, "\n".join(text.split()), ha="center", va="center", fontsize=8
            )
    ax.set_yticks([-place for place in range(len(rows))], list(rows))
    ax.set(xlabel=xlabel, ylabel="process", xlim=(0, None))
    fig.suptitle(title)
    show(fig, alt)


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
