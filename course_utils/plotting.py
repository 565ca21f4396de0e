"""The course's figures: images, tensors as grids of numbers, and where a view's numbers lie in memory.

Every figure ends in `show(fig, alt)`: one style, labelled axes, and a text alternative under it.
"""

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, RED, GREY = (  # Okabe and Ito: told apart by colour-blind readers
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#D55E00", "#999999",
)  # fmt: skip
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
    if not alt.strip():
        raise ValueError("alt is empty: say in words what the figure shows.")
    for ax in fig.axes:
        if ax.axison and not (ax.get_xlabel() and ax.get_ylabel()):
            raise ValueError("a plot lacks an axis label: set xlabel and ylabel, with units, or ax.axis('off').")
    png = io.BytesIO()
    fig.savefig(png, format="png", metadata={"Software": None})
    plt.close(fig)
    picture = base64.b64encode(png.getvalue()).decode("ascii")
    display({"image/png": picture, "text/plain": f"Figure: {alt}"}, raw=True)
    display(Markdown(f"*Figure: {alt}*"))


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
        raise ValueError(f"images have shape {shape}: expected (N, H, W), (N, 1, H, W) or (N, 3, H, W).{hint}")
    if not torch.isfinite(images).all():
        raise ValueError("images hold NaN or infinity: look for a division by zero before the plot.")
    images = images.detach().cpu()
    if len(shape) == 3 or shape[1] == 1:
        return images.reshape(shape[0], *shape[-2:]).numpy()
    if images.is_floating_point() and (images.min() < 0 or images.max() > 1):
        low, high = images.min().item(), images.max().item()
        raise ValueError(f"colours reach from {low:.3g} to {high:.3g}: bring floats to 0 to 1 (undo the normalisation).")
    return images.permute(0, 2, 3, 1).float().div(255 if images.dtype == torch.uint8 else 1).numpy()


def show_grids(
    tensors: Mapping[str, torch.Tensor],
    *,
    title: str,
    alt: str,
    colors: Mapping[str, str | torch.Tensor] | None = None,
    faded: Mapping[str, torch.Tensor] | None = None,
    between: Sequence[str] = (),
    numbers: bool = True,
) -> None:
    """Draw tensors side by side as grids of numbers, each under its name and shape.

    Args:
        tensors: name → tensor of up to three dimensions; the slices of a third stand side by side.
        title, alt: the finding, and the figure in words.
        colors: name → one colour for all its cells, or an integer tensor of its shape that numbers
            the cells' groups. Without it, the larger a number, the darker its cell.
        faded: name → mask of the cells to draw pale, as not really there.
        between: the signs between the grids, such as `["+", "="]`.
        numbers: write the values into the cells.

    Raises:
        ValueError: a tensor has more than three dimensions or no elements.
    """
    fig, ax = plt.subplots()
    x, tallest = 0.0, 1
    for i, (name, tensor) in enumerate(tensors.items()):
        if tensor.dim() > 3 or tensor.numel() == 0:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: a grid shows one to three dimensions.")
        if i and between:
            ax.text(x + 0.6, 0, between[i - 1], ha="center", va="center", fontsize=16)
        x += (1.2 if between else 0.9) if i else 0
        left = x
        cells = _cell_colors(tensor, (colors or {}).get(name))
        pale = (faded or {}).get(name, torch.zeros_like(tensor, dtype=torch.bool))
        for values, fills, fades in zip(*map(_slices, (tensor, cells, pale)), strict=True):
            rows, columns = values.shape
            _draw_cells(ax, x, rows / 2, values, fills, fades, numbers)
            x, tallest = x + columns + 0.4, max(tallest, rows)
        x -= 0.4
        ax.text((left + x) / 2, rows / 2 + 0.25, name, ha="center", va="bottom", family="monospace")
        ax.text((left + x) / 2, -rows / 2 - 0.25, f"{tuple(tensor.shape)}", ha="center", va="top", color="dimgray")
    _fit(fig, ax, x, (-tallest / 2 - 1, tallest / 2 + 1), title)
    show(fig, alt)


def show_broadcast(a: torch.Tensor, b: torch.Tensor, *, sign: str, result: torch.Tensor, title: str, alt: str) -> None:
    """Draw `a sign b = result` with the cells that broadcasting only imagines drawn pale.

    Args:
        a, b: tensors of up to two dimensions whose shapes can be broadcast together.
        sign: the sign between them.
        result: what the operation gave.
        title, alt: the finding, and the figure in words.
    """
    wide = torch.broadcast_tensors(a, b)
    real = []
    for small, large in zip((a, b), wide, strict=True):
        first = torch.zeros(large.shape, dtype=torch.bool)
        padded = (1,) * (large.dim() - small.dim()) + tuple(small.shape)
        first[tuple(slice(0, n) for n in padded)] = True
        real.append(first)
    names = [f"{tuple(t.shape)} → {tuple(w.shape)}" for t, w in zip((a, b), wide, strict=True)]
    names = [names[0], names[1] + " " * (names[0] == names[1]), "result"]
    show_grids(
        dict(zip(names, (*wide, result), strict=True)),
        colors=dict(zip(names, (SKY, ORANGE, GREEN), strict=True)),
        faded={names[0]: ~real[0], names[1]: ~real[1]},
        between=[sign, "="],
        title=title,
        alt=alt,
    )


def show_storage(views: Mapping[str, torch.Tensor], *, title: str, alt: str) -> None:
    """Draw the memory that some views share, and each view with its cells in their memory's colours.

    Args:
        views: name → tensor of one or two dimensions; all share one storage.
        title, alt: the finding, and the figure in words.

    Raises:
        ValueError: the tensors do not share one storage.
    """
    if len({tensor.untyped_storage().data_ptr() for tensor in views.values()}) != 1:
        raise ValueError("these tensors do not share one storage: show_storage draws views of one tensor.")
    base = next(iter(views.values()))
    size = base.untyped_storage().nbytes() // base.element_size()
    memory = torch.as_strided(base, (1, size), (size, 1), 0)
    shades = plt.get_cmap("viridis")
    fig, ax = plt.subplots()
    places = torch.arange(size).reshape(1, size)
    paint = lambda place: [[shades(0.25 + 0.75 * p / max(size - 1, 1)) for p in row] for row in place.tolist()]  # noqa: E731
    none = torch.zeros_like(memory, dtype=torch.bool)
    x, tallest = 0.0, max(1 if t.dim() < 2 else len(t) for t in views.values())
    for name, tensor in views.items():
        table = torch.atleast_2d(tensor)
        strides = (0, *tensor.stride())[-2:]
        rows, columns = (torch.arange(n) for n in table.shape)
        place = tensor.storage_offset() + rows[:, None] * strides[0] + columns * strides[1]
        _draw_cells(ax, x, 0, table, paint(place), torch.zeros_like(table, dtype=torch.bool), True)
        middle = x + table.shape[1] / 2
        ax.text(middle, 0.2, name, ha="center", va="bottom", family="monospace")
        label = f"shape {tuple(tensor.shape)}\nstride {tensor.stride()}\noffset {tensor.storage_offset()}"
        ax.text(middle, -len(table) - 0.2, label, ha="center", va="top", color="dimgray", fontsize=9)
        x += max(table.shape[1], 3) + 1.2
    x -= 1.2
    left = (x - size) / 2
    _draw_cells(ax, left, 3.2, memory, paint(places), none, True)
    for i in range(size):
        ax.text(left + i + 0.5, 1.9, str(i), ha="center", va="center", color="dimgray", fontsize=8)
    ax.text(left - 0.2, 2.7, "memory", ha="right", va="center", family="monospace")
    ax.text(left - 0.2, 1.9, "position", ha="right", va="center", color="dimgray", fontsize=8)
    _fit(fig, ax, max(x, left + size), (-tallest - 2.3, 3.6), title, start=min(0, left - 2.6))
    show(fig, alt)


def _slices(tensor: torch.Tensor | list) -> list:
    """Cut a tensor of one to three dimensions into the two-dimensional grids that are drawn."""
    tensor = torch.atleast_2d(tensor)
    return list(tensor) if tensor.dim() == 3 else [tensor]


def _cell_colors(tensor: torch.Tensor, choice: str | torch.Tensor | None) -> torch.Tensor:
    """Return a code for each cell's colour: `>= 0` an entry of COLORS, `-1 - v` the grey v in [0, 1]."""
    if isinstance(choice, str):
        return torch.full(tensor.shape, float(COLORS.index(choice)))
    if choice is not None:
        return choice.reshape(tensor.shape).double() % len(COLORS)
    values = tensor.detach().double()
    span = (values.max() - values.min()).item() or 1.0
    return -1 - (values - values.min()) / span


def _draw_cells(ax: Axes, x: float, y: float, values: torch.Tensor, fills, pale: torch.Tensor, numbers: bool) -> None:
    """Draw a grid of unit cells whose upper left corner is (x, y)."""
    fills = fills.tolist() if isinstance(fills, torch.Tensor) else fills
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            color = _rgb(fills[i][j])
            if pale[i, j]:
                color = tuple(0.8 + 0.2 * c for c in color)
            edge = "lightgray" if pale[i, j] else "white"
            ax.add_patch(Rectangle((x + j, y - i - 1), 1, 1, facecolor=color, edgecolor=edge, linewidth=1))
            if numbers:
                dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 0.5
                ink = "gray" if pale[i, j] else "white" if dark else "black"
                text = f"{value:.3g}" if isinstance(value, float) else str(value)
                ax.text(x + j + 0.5, y - i - 0.5, text, ha="center", va="center", color=ink, fontsize=9)


def _rgb(fill) -> tuple[float, float, float]:
    if isinstance(fill, tuple):
        return fill[:3]
    if fill >= 0:
        return to_rgb(COLORS[int(fill)])
    return (0.97 - 0.85 * (-1 - fill),) * 3


def _fit(fig: Figure, ax: Axes, right: float, heights: tuple[float, float], title: str, start: float = 0.0) -> None:
    """Size the figure so that a cell is the same square everywhere, as far as the width allows."""
    low, high = heights
    cell = min(8 / (right - start + 0.4), 0.5)
    fig.set_size_inches(8, (high - low) * cell + 0.4)
    spare = (8 / cell - (right - start)) / 2
    ax.set(xlim=(start - spare, right + spare), ylim=(low, high), aspect="equal")
    ax.axis("off")
    fig.suptitle(title)
