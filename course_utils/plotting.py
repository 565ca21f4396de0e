"""The course's figures: images, curves, points and bars. Drawings of tensors are in `diagrams`.

Every figure ends in `show(fig, alt)`: one style, labelled axes, and a text alternative under it.
"""

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from course_utils.memory import KINDS, MemoryMeter

BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, RED, GREY = (  # Okabe and Ito: told apart by colour-blind readers
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#D55E00", "#999999",
)  # fmt: skip
COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, RED, GREY)
Values = Sequence[float] | torch.Tensor
LARGE = 64_000  # bytes of a picture that is to be stored with fewer colours

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
    images: torch.Tensor,
    titles: Sequence[object] | None = None,
    *,
    title: str,
    alt: str,
    columns: int = 8,
    signed: bool = False,
) -> None:
    """Show a batch of images in rows, dark ink on white for one channel.

    Args:
        images: (N, H, W), (N, 1, H, W) or (N, 3, H, W); uint8 from 0 to 255, or floats from 0 to 1.
            One-channel images may have any range: the smallest value is white, the largest black.
        titles: a text for each image.
        title, alt: the finding, and the figure in words.
        columns: how many images stand in a row.
        signed: one-channel images whose sign matters, such as weights: zero is white, negative values
            are orange, positive ones violet, on one scale for all images.

    Raises:
        TypeError: `images` is no tensor, or of a dtype that is no image.
        ValueError: wrong shape, no image at all, values that are not finite, colours outside their
            range, or another number of titles than of images.
    """
    pictures = _checked_images(images)
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(titles)} titles for {len(pictures)} images: give one for each.")
    if signed and pictures.ndim == 4:
        raise ValueError("colours have no sign: signed=True needs images of one channel.")
    if columns < 1:
        raise ValueError(f"columns={columns}: at least one image must stand in a row.")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    height = 8 / max(columns, 5) * rows * (1.25 if titles is not None else 1.0)
    fig, axes = plt.subplots(rows, columns, figsize=(8, height + 0.4), squeeze=False)
    limits = {"vmin": pictures.min(), "vmax": pictures.max()} if pictures.ndim == 3 else {}
    if signed:
        largest = abs(pictures).max() or 1
        limits = {"vmin": -largest, "vmax": largest, "cmap": "PuOr"}
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


def show_plot(
    lines: Mapping[str, Values | tuple[Values, Values]] | None = None,
    *,
    points: Mapping[str, tuple[Values, Values]] | None = None,
    levels: Mapping[str, float] | None = None,
    xlabel: str,
    ylabel: str,
    title: str,
    alt: str,
    first: int = 0,
    log: bool = False,
    log_x: bool = False,
) -> None:
    """Plot named lines, named sets of points, and named heights, in one pair of axes.

    Args:
        lines: name → (x, y), or only the values at first, first + 1, ... Later lines are thinner, and
            dashed, so that equal ones can be told apart.
        points: name → (x, y); each set has a marker of its own, in black if there are lines.
        levels: name → a height to mark with a dotted line.
        xlabel, ylabel: what the axes show, with units.
        title, alt: the finding, and the figure in words.
        first: where lines without an x begin.
        log, log_x: whether the y axis, or the x axis, is logarithmic.

    Raises:
        ValueError: there is nothing to draw, or x and y differ in length.
    """
    counted = {name for name, line in (lines or {}).items() if not isinstance(line, tuple)}
    drawn = {name: _places(name, line, first) for name, line in (lines or {}).items()}
    dots = {name: _places(name, pair, first) for name, pair in (points or {}).items()}
    if not drawn and not dots:
        raise ValueError("there is nothing to draw: give lines, or points.")
    fig, ax = plt.subplots()
    for i, (name, (x, y)) in enumerate(dots.items()):
        color = "black" if drawn else COLORS[i % 8]
        ax.plot(x, y, "osD^vP*X"[i % 8], color=color, markersize=4.5, alpha=0.8, zorder=3, label=name)
    for i, (name, (x, y)) in enumerate(drawn.items()):
        style = ("-", "--", "-.", ":")[i % 4]
        marker = "o" if name in counted and len(x) <= 30 else ""
        width = max(3.4 - 0.7 * i, 1.6)
        ax.plot(x, y, style, color=COLORS[i % 8], marker=marker, markersize=4, linewidth=width, label=name)
    for name, height in (levels or {}).items():
        ax.axhline(height, color=GREY, linestyle=(0, (1, 1)), label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
    if log_x:
        ax.set_xscale("log")
    elif counted:
        ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    fig.suptitle(title, fontsize=12)
    fig.legend(frameon=False, loc="outside right center")
    show(fig, alt)


def _places(name: str, line: Values | tuple[Values, Values], first: int) -> tuple[np.ndarray, np.ndarray]:
    """A line's x and y as arrays: matplotlib takes a tensor only with a warning."""
    y = _plain(line[1] if isinstance(line, tuple) else line)
    x = _plain(line[0]) if isinstance(line, tuple) else np.arange(first, first + len(y))
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"{name} has {len(x)} places and {len(y)} values: give as many of each, and some.")
    return x, y


def _plain(values: Sequence[float] | torch.Tensor) -> np.ndarray:
    """The values as a NumPy array, which is what matplotlib understands without a warning."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def show_panels(
    panels: Mapping[str, Mapping[str, Values | tuple[Values, Values]]],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    alt: str,
    first: int = 0,
    log: bool = False,
) -> None:
    """Plot several sets of curves side by side, on the same axes, so that they can be compared.

    Args:
        panels: what stands over a panel → its lines, by name; every panel has lines of the same names.
            A line is given as (x, y), or only by its values.
        xlabel, ylabel: what the axes show, with units.
        title, alt: the finding, and the figure in words.
        first: where the lines without an x begin.
        log: whether the y axis is logarithmic.

    Raises:
        ValueError: there are no panels, or their lines have other names.
    """
    names = [list(lines) for lines in panels.values()]
    if not names or any(these != names[0] for these in names):
        raise ValueError(f"the panels have the lines {names}: give some, with the same names in each.")
    fig, axes = plt.subplots(1, len(panels), figsize=(8, 3.2), sharex=True, sharey=True, squeeze=False)
    for ax, (head, lines) in zip(axes.flat, panels.items(), strict=True):
        for i, (name, line) in enumerate(lines.items()):
            x, y = _places(name, line, first)
            ax.plot(x, y, ("-", "--", "-.", ":")[i % 4], color=COLORS[i % 8], linewidth=2.2, label=name)
        ax.set(title=head, xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
        ax.label_outer()
        ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], nbins=4, integer=True))
    for ax in axes.flat[1:]:
        ax.set_ylabel(ylabel)
        ax.yaxis.label.set_visible(False)
    fig.legend(*axes.flat[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4)
    fig.suptitle(title, fontsize=12)
    show(fig, alt)


def show_confusion(
    targets: torch.Tensor, predictions: torch.Tensor, classes: Sequence[str], *, title: str, alt: str
) -> None:
    """Draw how often each class is taken for each other: rows are the true classes, columns the predicted.

    Right predictions are blue, mistakes orange, each darker the more there are; empty cells stay white.

    Args:
        targets, predictions: (N,), class indices.
        classes: the names of the classes.
        title, alt: the finding, and the figure in words.

    Raises:
        ValueError: the shapes differ, or an index has no name.
    """
    number = len(classes)
    pairs = torch.stack([targets, predictions]).cpu() if targets.shape == predictions.shape else None
    if pairs is None or targets.ndim != 1 or not ((pairs >= 0) & (pairs < number)).all():
        raise ValueError(f"give two tensors (N,) of class indices from 0 to {number - 1}.")
    counts = torch.bincount(number * pairs[0] + pairs[1], minlength=number**2).reshape(number, number)
    right = torch.eye(number, dtype=torch.bool)
    fig, ax = plt.subplots(figsize=(8, 0.3 * number + 1.4))
    for part, cmap in ((right, "Blues"), (~right, "Oranges")):
        shown = np.ma.masked_where(~(part & (counts > 0)).numpy(), counts.numpy())
        ax.imshow(shown, cmap=cmap, vmin=-0.3 * counts[part].max(), vmax=1.3 * max(1, counts[part].max()))
    for row, column in counts.nonzero().tolist():
        ax.text(column, row, str(int(counts[row, column])), ha="center", va="center", fontsize=9)
    ax.set_xticks(range(number), classes)
    ax.set_yticks(range(number), classes)
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(number + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(number + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="#DDDDDD")
    ax.tick_params(which="both", length=0)
    fig.suptitle(title, fontsize=12)
    show(fig, alt)


def show_descent(
    x: torch.Tensor,
    y: torch.Tensor,
    values: torch.Tensor,
    path: Sequence[tuple[float, float]] | Mapping[str, Sequence[tuple[float, float]]],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    alt: str,
) -> None:
    """Draw a function of two variables as contour lines, and on it the path of a descent, or several.

    Args:
        x, y: (N,) and (M,), the places along the axes.
        values: (M, N), the function: one row for each y.
        path: the points of the descent, in order; or several paths by name.
        xlabel, ylabel: what the axes show, with units.
        title, alt: the finding, and the figure in words.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if values.shape != (len(y), len(x)):
        raise ValueError(
            f"values have shape {tuple(values.shape)}: expected {(len(y), len(x))}, a row for each y."
        )
    fig, ax = plt.subplots(figsize=(8, 4))
    levels = torch.linspace(0, 1, 14).square() * (values.max() - values.min()) + values.min()
    ax.contourf(_plain(x), _plain(y), _plain(values), _plain(levels), cmap="Blues_r")
    ax.contour(_plain(x), _plain(y), _plain(values), _plain(levels), colors="white", linewidths=0.6)
    if isinstance(path, Mapping):
        for (name, points), marker, color in zip(
            path.items(), "osD^vP", (ORANGE, PINK, YELLOW, RED, GREEN, SKY), strict=False
        ):
            steps = torch.tensor(points)
            ax.plot(
                *(_plain(steps[:, 0]), _plain(steps[:, 1])),
                **{"marker": marker, "color": color, "markersize": 3.5, "linewidth": 1.4, "label": name},
            )
        fig.legend(frameon=False, loc="outside right center")
    else:
        steps = torch.tensor(path)
        ax.plot(_plain(steps[:, 0]), _plain(steps[:, 1]), "o-", color=ORANGE, markersize=3.5, linewidth=1.2)
        for (a, b), name, color in ((path[0], "start", "white"), (path[-1], "end", "white")):
            ax.annotate(name, (a, b), xytext=(8, 6), textcoords="offset points", color=color, weight="bold")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    fig.suptitle(title, fontsize=12) if isinstance(path, Mapping) else ax.set_title(title)
    show(fig, alt)


def show_bars(
    groups: Mapping[str, Sequence[float]],
    names: Sequence[str],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    alt: str,
    errors: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Draw a group of bars for each name, with a bar of each series in it, and the number over each bar.

    Args:
        groups: the series: what it is → a number for each of `names`.
        names: what stands under the groups of bars.
        xlabel, ylabel: what the axes show, with units.
        title, alt: the finding, and the figure in words.
        errors: for each series the half lengths of the error bars; by default there are none.

    Raises:
        ValueError: a series, or its errors, has another number of values than there are names.
    """
    half = {key: errors[key] if errors else [None] * len(names) for key in groups}
    if wrong := [key for key, values in groups.items() if not len(values) == len(half[key]) == len(names)]:
        raise ValueError(f"{', '.join(wrong)}: give {len(names)} values, one for each name.")
    fig, ax = plt.subplots()
    width = 0.8 / len(groups)
    for i, (key, values) in enumerate(groups.items()):
        places = [n + (i + 0.5) * width - 0.4 for n in range(len(names))]
        bars = {"yerr": list(map(float, half[key])), "capsize": 4} if errors else {}
        drawn = ax.bar(places, list(map(float, values)), width * 0.95, label=key, **bars)
        ax.bar_label(drawn, fmt="{:.3g}", padding=2)
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if len(groups) > 1:
        fig.legend(loc="outside right upper", frameon=False)
    fig.suptitle(title)
    show(fig, alt)


def show_timeline(
    rows: Mapping[str, Sequence[tuple[float, float, str]]],
    *,
    xlabel: str,
    ylabel: str = "process",
    kinds: Sequence[str] = (),
    title: str,
    alt: str,
) -> None:
    """Draw who does what when: a row for each worker, a box for each piece of work.

    Args:
        rows: who → pieces of work (start, duration, text). The first word of the text gives the colour.
        xlabel: what the time is counted in; or another length, such as that of blocks of memory.
        ylabel: what the rows are.
        kinds: first words, in the order of their colours; default: in the order in which they come.
        title, alt: the finding, and the figure in words.
    """
    fig, ax = plt.subplots(figsize=(8, 0.55 * len(rows) + 1.1))
    seen = list(kinds)
    for place, pieces in enumerate(rows.values()):
        for start, duration, text in pieces:
            kind = text.split()[0]
            seen += [] if kind in seen else [kind]
            color = (SKY, ORANGE, GREEN, PINK)[seen.index(kind) % 4]
            ax.barh(-place, duration, 0.75, left=start, color=color, edgecolor="white")
            ax.text(
                start + duration / 2, -place, "\n".join(text.split()), ha="center", va="center", fontsize=8
            )
    ax.set_yticks([-place for place in range(len(rows))], list(rows))
    ax.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, None))
    fig.suptitle(title)
    show(fig, alt)


def show_memory(meter: MemoryMeter, *, title: str, alt: str, start: str | None = None) -> None:
    """Draw a meter's timeline: the live bytes after each allocation or free, stacked by kind.

    The marks stand as lines with their labels over the plot; a limit is dotted.

    Args:
        meter: a meter that has counted something.
        title, alt: the finding, and the figure in words.
        start: the label of the mark at which the plot begins; default: where the meter began.

    Raises:
        ValueError: the meter has counted nothing, or has no such mark.
    """
    marks = [(place, label) for label, place in meter.marks]
    if start is not None and start not in [label for _, label in marks]:
        raise ValueError(f"start={start!r} is no mark: the meter has {[label for _, label in marks]}.")
    begin = 0 if start is None else next(place for place, label in marks if label == start)
    sizes = np.array(meter.timeline)[begin:] / 2**20
    if not sizes.any():
        raise ValueError("the meter has counted nothing: use tensors inside its block, on its device.")
    x = np.arange(begin, begin + len(sizes))
    if len(x) > 4000:  # more than there are pixels: of each few changes, the highest
        parts = np.array_split(np.arange(len(x)), 2000)
        kept = [part[sizes[part].sum(1).argmax()] for part in parts]
        x, sizes = x[kept], sizes[kept]
    fig, ax = plt.subplots()
    tops = sizes.cumsum(1)
    for i, kind in enumerate(KINDS):
        if sizes[:, i].any():
            color = (BLUE, ORANGE, YELLOW, SKY, GREEN, GREY)[i]
            ax.fill_between(
                x, tops[:, i] - sizes[:, i], tops[:, i], step="post", color=color, linewidth=0, label=kind
            )
    if meter.limit is not None:
        ax.axhline(meter.limit / 2**20, color="black", linestyle=(0, (1, 1)), label="limit")
    seen = [(place, label) for place, label in marks if place >= begin]
    for place, _ in seen:
        ax.axvline(place, color="black", linewidth=0.8)
    if seen:
        ticks = ax.secondary_xaxis("top")
        turned = {"rotation": 40, "ha": "left"} if len(seen) > 4 else {}
        ticks.set_xticks([place for place, _ in seen], [label for _, label in seen], fontsize=9, **turned)
        ticks.tick_params(length=0)
    ax.set(
        xlabel="allocations and frees", ylabel="live tensors (MiB)", ylim=(0, None), xlim=(x[0], x[-1] + 1)
    )
    fig.suptitle(title, fontsize=12)
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles[::-1], labels[::-1], frameon=False, loc="outside right center")
    show(fig, alt)
