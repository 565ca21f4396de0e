"""The course's figures: images, curves, points and bars. Drawings of tensors are in `diagrams`.

Every figure has a `title`, the finding; an `alt`, the figure in words; and, where there are axes, what
matplotlib's `Axes.set` takes: `xlabel` and `ylabel` (with units), `yscale="log"` and so on. Values are
tensors, on any device, or sequences.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from course_utils.memory import KINDS, MemoryMeter

COLORS = BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, RED, GREY = (  # Okabe and Ito: for colour-blind readers, too
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#D55E00", "#999999",
)  # fmt: skip
Values = Sequence[float] | torch.Tensor
Lines = Mapping[str, Values | tuple[Values, Values]]
LARGE = 64_000  # bytes of a picture that is stored with 256 colours: a third of the size

mpl.rcParams.update(
    {
        "figure.dpi": 100,
        "figure.figsize": (8, 3.5),
        "figure.titlesize": 12,
        "figure.constrained_layout.use": True,
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.prop_cycle": mpl.cycler(  # later lines are thinner, and dashed: equal ones can be told apart
            color=COLORS, linestyle=["-", "--", "-.", ":"] * 2, linewidth=[3.4, 2.7, 2.0] + [1.6] * 5
        ),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "image.cmap": "gray_r",
        "image.interpolation": "nearest",
        "legend.frameon": False,
        "lines.markersize": 4,
    }
)


def show(fig: Figure, alt: str) -> None:
    """Display a figure, and under it `alt`, which tells in words what the figure shows; close it.

    The words serve readers who cannot see the picture, and the tests, which compare them.

    Raises:
        ValueError: `alt` is empty, or axes that are switched on lack a label.
    """
    plt.close(fig)
    if not alt.strip():
        raise ValueError("alt is empty: say in words what the figure shows.")
    for ax in fig.axes:
        if ax.axison and not (ax.get_xlabel() and (ax.get_ylabel() or fig.get_supylabel())):
            raise ValueError("a plot lacks an axis label: set xlabel and ylabel, or ax.axis('off').")
    png = io.BytesIO()
    fig.savefig(png, format="png", metadata={"Software": None})
    if png.tell() > LARGE:
        picture = Image.open(png).convert("RGB")
        picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
        picture.save(png := io.BytesIO(), format="png")
    encoded = base64.b64encode(png.getvalue()).decode("ascii")
    display({"image/png": encoded, "text/plain": f"Figure: {alt}"}, raw=True)
    display(Markdown(f"*Figure: {alt}*"))


def show_images(
    images: torch.Tensor,
    titles: Sequence[object] | None = None,
    *,
    title: str,
    alt: str,
    columns: int = 8,
    signed: bool = False,
) -> None:
    """Show a batch of images in rows of `columns`, dark ink on white for one channel.

    Args:
        images: (N, H, W), (N, 1, H, W) or (N, 3, H, W); colours are uint8, or floats from 0 to 1.
            One-channel images may have any range: the smallest value is white, the largest black.
        titles: a text for each image.
        signed: one-channel images whose sign matters, such as weights: zero is white, negative values
            are orange, positive ones violet, on one scale for all images.

    Raises:
        ValueError: wrong shape, no image at all, values that are not finite, colours outside their
            range, another number of titles than of images, or fewer than one column.
    """
    pictures = torch.as_tensor(images, device="cpu").detach()
    shape = tuple(pictures.shape)
    pictures = pictures[:, None] if len(shape) == 3 else pictures
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or 0 in shape:
        raise ValueError(
            f"images have shape {shape}: expected (N, H, W), (N, 1, H, W) or (N, 3, H, W). "
            "unsqueeze(0) makes a batch of one image, permute(0, 3, 1, 2) puts the channels first."
        )
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(titles)} titles for {len(pictures)} images: give one for each.")
    if columns < 1:
        raise ValueError(f"{columns=}: give at least 1.")
    colored = pictures.shape[1] == 3
    pictures = pictures.float() / (255 if colored and pictures.dtype == torch.uint8 else 1)
    low, high = (limit.item() for limit in pictures.aminmax())
    if not np.isfinite(high - low):
        raise ValueError("images hold NaN or infinity: look for a division by zero before the plot.")
    if colored and not 0 <= low <= high <= 1:
        raise ValueError(
            f"colours reach from {low:.3g} to {high:.3g}: bring floats to 0 to 1 (undo the normalisation)."
        )
    if signed:
        high = max(-low, high) or 1
        low = -high

    columns = min(columns, len(pictures))
    texts = [""] * len(pictures) if titles is None else titles
    rows = -(-len(pictures) // columns)
    fig = Figure(figsize=(8, 8 / max(columns, 5) * rows * (1.25 if titles is not None else 1) + 0.4))
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, picture, text in zip(axes, pictures, texts, strict=False):
        ax.imshow(picture.permute(1, 2, 0).numpy(), "PuOr" if signed else None, vmin=low, vmax=high)
        ax.set_title(str(text), fontsize=10)
    fig.suptitle(title)
    show(fig, alt)


def _array(values: Values) -> np.ndarray:
    """Return values as the NumPy array that matplotlib takes without a warning."""
    return values.detach().cpu().double().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _draw_lines(ax: Axes, lines: Lines, first: int) -> None:
    for name, line in lines.items():
        counted = not isinstance(line, tuple)
        x, y = (range(first, first + len(line)), line) if counted else line
        ax.plot(_array(x), _array(y), marker="o" if counted and len(line) <= 30 else "", label=name)
        if counted:
            ax.xaxis.get_major_locator().set_params(integer=True)


def show_plot(
    lines: Lines | None = None,
    *,
    points: Mapping[str, tuple[Values, Values]] | None = None,
    levels: Mapping[str, float] | None = None,
    surface: tuple[Values, Values, torch.Tensor] | None = None,
    first: int = 0,
    title: str,
    alt: str,
    **axes: Any,
) -> None:
    """Plot named lines, named sets of points, and named heights, in one pair of axes.

    Args:
        lines: name → (x, y), or only the values at first, first + 1, ...
        points: name → (x, y); each set has a marker of its own, in black if there are lines.
        levels: name → a height to mark with a dotted line.
        surface: x (N,), y (M,) and the values (M, N) of a function, drawn under the lines as contours.
        first: where lines without an x begin.

    Raises:
        ValueError: there is nothing to plot, or an x and its y differ in length.
        TypeError: the surface's shapes do not fit together.
    """
    if not (lines or points or levels or surface):
        raise ValueError("there is nothing to plot: give lines, points, levels or a surface.")
    fig = Figure()
    ax = fig.subplots()
    if surface:
        x, y, z = map(_array, surface)
        heights = z.min() + np.linspace(0, 1, 14) ** 2 * (z.max() - z.min())  # closer near the lowest point
        ax.contourf(x, y, z, heights, cmap="Greys_r", vmin=3 * z.min() - 2 * z.max())
        ax.contour(x, y, z, heights, colors="white", linewidths=1)
    _draw_lines(ax, lines or {}, first)
    if surface:
        plt.setp(ax.lines, linestyle="-", linewidth=1.4, marker="o", markersize=3)
    for i, (name, (x, y)) in enumerate((points or {}).items()):
        look = {"color": "black" if lines else COLORS[i % 8], "marker": "osD^vP*X"[i % 8]}
        ax.scatter(_array(x), _array(y), 20, alpha=0.8, zorder=3, label=name, **look)
    for name, height in (levels or {}).items():
        ax.axhline(height, color=GREY, linestyle=":", label=name)
    ax.set(**axes)
    fig.legend(loc="outside right center")
    fig.suptitle(title)
    show(fig, alt)


def show_panels(
    panels: Mapping[str, Lines],
    *,
    ylabel: str,
    first: int = 0,
    title: str,
    alt: str,
    **axes: Any,
) -> None:
    """Plot several sets of lines side by side, on the same axes, so that they can be compared.

    Args:
        panels: what stands over a panel → its lines, as for `show_plot`.
        first: where lines without an x begin.

    Raises:
        ValueError: there are no panels, or the names of their lines differ.
    """
    if len({tuple(lines) for lines in panels.values()}) != 1:
        raise ValueError("give panels whose lines have the same names: one legend tells them apart.")
    fig = Figure(figsize=(8, 3.2))
    row = fig.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False).flat
    for ax, (head, lines) in zip(row, panels.items(), strict=True):
        _draw_lines(ax, lines, first)
        plt.setp(ax.lines, linewidth=2)
        ax.set(title=head, **axes)
    fig.supylabel(ylabel, fontsize=11)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    fig.suptitle(title)
    show(fig, alt)


def show_bars(
    groups: Mapping[str, Values],
    names: Sequence[str],
    *,
    errors: Mapping[str, Values] | None = None,
    title: str,
    alt: str,
    **axes: Any,
) -> None:
    """Draw a group of bars for each name, with a bar of each series in it, and the number over each bar.

    Args:
        groups: the series: what it is → a number for each of `names`.
        names: what stands under the groups of bars.
        errors: for each series the half lengths of its error bars.

    Raises:
        ValueError: there is no series, or one has another number of values or error bars than of names.
        KeyError: `errors` lacks a series.
    """
    if not groups:
        raise ValueError("there are no bars: give groups at least one series.")
    fig = Figure()
    ax = fig.subplots()
    width = 0.8 / len(groups)
    for i, (key, values) in enumerate(groups.items()):
        if len(values) != len(names):
            raise ValueError(f"{key}: give {len(names)} values, one for each name.")
        places = np.arange(len(names)) + (i + 0.5) * width - 0.4
        half = {"yerr": _array(errors[key]), "error_kw": {"capsize": 4, "elinewidth": 1.5}} if errors else {}
        ax.bar_label(ax.bar(places, _array(values), width * 0.95, label=key, **half), fmt="{:.3g}", padding=2)
    ax.set_xticks(range(len(names)), names)
    ax.set(**axes)
    if len(groups) > 1:
        fig.legend(loc="outside right upper")
    fig.suptitle(title)
    show(fig, alt)


def show_timeline(
    rows: Mapping[str, Sequence[tuple[float, float, str]]],
    *,
    kinds: Sequence[str],
    ylabel: str = "process",
    title: str,
    alt: str,
    **axes: Any,
) -> None:
    """Draw who does what when: a row for each worker, a box for each piece of work.

    Args:
        rows: who → pieces of work (start, duration, text).
        kinds: the first words of the texts, which give the colours.
    """
    fig = Figure(figsize=(8, 0.55 * len(rows) + 1.1))
    ax = fig.subplots()
    for place, pieces in enumerate(rows.values()):
        starts, durations, texts = zip(*pieces, strict=True)
        colors = [(SKY, ORANGE, GREEN, PINK)[kinds.index(text.split()[0])] for text in texts]
        boxes = ax.barh([-place] * len(pieces), durations, 0.75, starts, color=colors, edgecolor="white")
        ax.bar_label(boxes, [text.replace(" ", "\n") for text in texts], label_type="center", fontsize=8)
    ax.set_yticks(-np.arange(len(rows)), rows)
    ax.set(ylabel=ylabel, xlim=(0, None), **axes)
    fig.suptitle(title)
    show(fig, alt)


def show_memory(meter: MemoryMeter, *, start: str | None = None, title: str, alt: str) -> None:
    """Draw a meter's timeline: the live bytes after each allocation or free, stacked by kind.

    The marks stand as lines with their labels over the plot; a limit is dotted.

    Args:
        meter: a meter that has counted something.
        start: the label of the mark at which the plot begins; default: where the meter began.

    Raises:
        ValueError: the meter has no such mark, or has counted nothing.
    """
    places = {None: 0, **dict(meter.marks)}
    if start not in places:
        raise ValueError(f"start={start!r} is no mark: the meter has {list(dict(meter.marks))}.")
    begin = places[start]
    sizes = np.array(meter.timeline)[begin:] / 2**20
    used = sizes.any(axis=0)
    if not used.any():
        raise ValueError("the meter has counted nothing: use tensors inside its block, on its device.")
    fig = Figure()
    ax = fig.subplots()
    x = range(begin, begin + len(sizes))
    names, colors = np.array(KINDS)[used], np.array((BLUE, ORANGE, YELLOW, SKY, GREEN, GREY))[used]
    ax.stackplot(x, sizes.T[used], labels=names, colors=colors, step="post", linewidth=0)
    if meter.limit is not None:
        ax.axhline(meter.limit / 2**20, color="black", linestyle=":", label="limit")
    marks = [(label, place) for label, place in meter.marks if place >= begin]
    for _, place in marks:
        ax.axvline(place, color="black", linewidth=0.8)
    turned = {"rotation": 40, "ha": "left"} if len(marks) > 4 else {}
    ticks = ax.secondary_xaxis("top")
    ticks.set_xticks([place for _, place in marks], [label for label, _ in marks], fontsize=9, **turned)
    ticks.tick_params(length=0)
    ax.set(
        xlabel="allocations and frees", ylabel="live tensors (MiB)", ylim=(0, None), xlim=(x[0], x[-1] + 1)
    )
    fig.legend(loc="outside right center", reverse=True)
    fig.suptitle(title)
    show(fig, alt)
