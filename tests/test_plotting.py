"""Figures: what is refused, what is drawn, and how it is shown."""

import base64
import io

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

mpl.use("agg")

import matplotlib.pyplot as plt

from course_utils import diagrams, plotting
from course_utils.diagrams import show_broadcast, show_graph, show_grids, show_reductions, show_storage
from course_utils.plotting import show, show_images, show_plot

WORDS = {"title": "a finding", "alt": "what the figure shows"}


@pytest.fixture(autouse=True)
def displayed(monkeypatch):
    """Collect what is displayed; no figure may be left open, whether it was shown or refused."""
    plt.close("all")
    shown = []

    def display(thing, raw=False):
        assert raw is isinstance(thing, dict)  # a bundle of MIME types is displayed as it is
        shown.append(thing)

    monkeypatch.setattr(plotting, "display", display)
    yield shown
    left = plt.get_fignums()
    plt.close("all")
    assert left == []


@pytest.fixture
def figures(monkeypatch):
    """Keep the figures that are shown, to look at what is drawn on them."""
    kept = []
    for module in (plotting, diagrams):
        monkeypatch.setattr(module, "show", lambda fig, alt: kept.append(fig) or show(fig, alt))
    return kept


def _png(shown):
    return base64.b64decode(shown[0]["image/png"])


def _texts(fig):
    return [text.get_text() for ax in fig.axes for text in ax.texts]


# --- show ------------------------------------------------------------------------------------------


def _plot():
    fig, ax = plt.subplots()
    ax.plot([1, 2, 3])
    ax.set(xlabel="step", ylabel="loss")
    return fig


def test_a_figure_is_a_picture_and_its_words(displayed):
    show(_plot(), "the loss rises")
    picture, words = displayed
    assert picture["text/plain"] == "Figure: the loss rises"
    assert words.data == "*Figure: the loss rises*"
    pixels = plt.imread(io.BytesIO(_png(displayed)))
    assert pixels.shape == (350, 800, 4)
    assert pixels.std() > 0.01
    assert b"Software" not in _png(displayed)


@pytest.mark.parametrize("alt", ["", " ", "\n"])
def test_the_words_must_be_there(alt, displayed):
    with pytest.raises(ValueError, match="alt is empty: say in words"):
        show(_plot(), alt)
    assert displayed == []


@pytest.mark.parametrize(
    "labels", [{}, {"xlabel": "step"}, {"ylabel": "loss"}, {"xlabel": "", "ylabel": "loss"}]
)
def test_axes_must_be_labelled(labels, displayed):
    fig, axes = plt.subplots(1, 2)
    axes[0].axis("off")
    axes[1].set(**labels)
    with pytest.raises(ValueError, match="a plot lacks an axis label"):
        show(fig, "words")
    assert displayed == []


@pytest.mark.parametrize(
    "draw",
    [
        lambda: show(_plot(), "words"),
        lambda: show_images(torch.arange(128.0).reshape(2, 8, 8), ["a", "b"], **WORDS),
        lambda: show_grids({"x": torch.arange(6).reshape(2, 3), "y": torch.ones(2)}, **WORDS),
        lambda: show_storage(_views(), **WORDS),
        lambda: show_plot({"a": ([0, 1], [1, 2])}, **AXES, **WORDS),
        lambda: show_plot(
            {"a": ([0, 1], [1, 0])}, surface=(range(3), range(2), torch.eye(3)[:2]), **AXES, **WORDS
        ),
        lambda: show_graph(_leaf(2.0) ** 2, **WORDS),
        lambda: show_broadcast(
            dict(zip("ab", _pair(), strict=True)), sign="+", result=_pair()[0] + _pair()[1], **WORDS
        ),
    ],
)
def test_two_calls_give_the_same_bytes(draw, displayed):
    draw()
    draw()
    assert displayed[0] == displayed[2]
    assert _png(displayed) == base64.b64decode(displayed[2]["image/png"])
    assert plt.imread(io.BytesIO(_png(displayed))).std() > 0.01


def _views():
    x = torch.arange(6)
    return {"x": x, "x.reshape(2, 3).T": x.reshape(2, 3).T, "x[1::2]": x[1::2]}


def _pair():
    return torch.arange(3)[:, None], torch.arange(2)


# --- show_images -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(2, 8, 8),
        torch.rand(2, 1, 8, 8),
        torch.rand(1, 3, 8, 8),
        torch.randint(0, 17, (20, 8, 8), dtype=torch.uint8),
        torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8),
        torch.rand(2, 8, 8, dtype=torch.float64) * 100 - 50,
        torch.rand(2, 8, 8).half(),
        torch.rand(2, 3, 8, 8).bfloat16(),
        torch.rand(2, 8, 8).bfloat16(),
        torch.rand(2, 8, 8, requires_grad=True),
        torch.rand(8, 8, 2).permute(2, 1, 0),
        torch.zeros(2, 8, 8),
        torch.rand(1, 2, 9),
    ],
)
def test_images_are_shown(images, displayed, figures):
    show_images(images, **WORDS)
    assert len(displayed) == 2
    (fig,) = figures
    drawn = [ax.images[0].get_array().squeeze() for ax in fig.axes if ax.images]
    assert len(drawn) == len(images)
    channels = (3,) if images.dim() == 4 and images.shape[1] == 3 else ()
    assert drawn[0].shape == (*images.shape[-2:], *channels)
    scale = 255 if channels and images.dtype == torch.uint8 else 1
    first = (
        images[0].detach().float().squeeze(0) if not channels else images[0].float().permute(1, 2, 0) / scale
    )
    assert np.allclose(np.asarray(drawn[0], dtype=np.float32), first.numpy(), atol=1e-6)
    assert all(not ax.axison for ax in fig.axes)


def test_images_share_one_scale(figures):
    show_images(torch.stack([torch.zeros(4, 4), torch.full((4, 4), 9.0)]), **WORDS)
    assert {ax.images[0].get_clim() for ax in figures[0].axes} == {(0.0, 9.0)}
    assert {ax.images[0].get_interpolation() for ax in figures[0].axes if ax.images} == {"nearest"}


@pytest.mark.parametrize(
    ("count", "columns", "grid"), [(1, 8, (1, 1)), (10, 5, (2, 5)), (9, 8, (2, 8)), (3, 1, (3, 1))]
)
def test_rows_and_columns(count, columns, grid, figures):
    show_images(torch.rand(count, 4, 4), columns=columns, **WORDS)
    spec = figures[0].axes[0].get_subplotspec().get_gridspec()
    assert (spec.nrows, spec.ncols) == grid


def test_titles(figures):
    show_images(torch.rand(3, 4, 4), torch.tensor([7, 8, 9]).tolist(), **WORDS)
    assert [ax.get_title() for ax in figures[0].axes] == ["7", "8", "9"]
    assert figures[0].get_suptitle() == "a finding"


@pytest.mark.parametrize("titles", [np.array(["a", "b"]), np.array(["", "b"])])
def test_titles_in_an_array(titles, figures):
    show_images(torch.rand(2, 4, 4), titles, **WORDS)
    assert [ax.get_title() for ax in figures[0].axes] == titles.tolist()


@pytest.mark.parametrize("columns", [0, -1])
def test_a_number_of_columns_that_is_none(columns):
    with pytest.raises(ValueError, match=f"columns={columns}: give at least 1"):
        show_images(torch.rand(2, 4, 4), columns=columns, **WORDS)


@pytest.mark.parametrize("titles", [[], ["a"], ["a", "b", "c"]])
def test_a_wrong_number_of_titles(titles):
    with pytest.raises(ValueError, match=f"{len(titles)} titles for 2 images: give one for each"):
        show_images(torch.rand(2, 4, 4), titles, **WORDS)


@pytest.mark.parametrize(
    "shape",
    [
        *[(), (4,), (4, 4), (2, 4, 4, 3), (2, 4, 4, 1), (2, 2, 4, 4), (2, 4, 4, 4)],
        *[(1, 2, 3, 4, 4), (0, 4, 4), (2, 0, 4), (2, 3, 4, 0)],
    ],
)
def test_shapes_that_are_no_images(shape):
    with pytest.raises(ValueError, match=r"images have shape .*: expected .* unsqueeze.* permute"):
        show_images(torch.zeros(shape), **WORDS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 1, 4, 4), (2, 3, 4, 4)])
def test_values_that_are_not_finite(value, shape):
    images = torch.zeros(shape)
    images[..., 0, 0] = value
    with pytest.raises(ValueError, match="images hold NaN or infinity"):
        show_images(images, **WORDS)


@pytest.mark.parametrize("value", [-0.1, 1.1, 255.0])
def test_colours_out_of_range(value):
    images = torch.full((1, 3, 4, 4), 0.5)
    images[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"colours reach from .* bring floats to 0 to 1"):
        show_images(images, **WORDS)


@pytest.mark.parametrize(
    "draw",
    [
        lambda **words: show_images(torch.rand(2, 4, 4), **words),
        lambda **words: show_grids({"x": torch.ones(2)}, **words),
        lambda **words: show_storage({"x": torch.ones(2)}, **words),
    ],
)
def test_every_figure_needs_words(draw):
    with pytest.raises(ValueError, match="alt is empty"):
        draw(title="a finding", alt="")


# --- grids, broadcasting, storage ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensor", "numbers"),
    [
        (torch.tensor([1, 2]), ["1", "2"]),
        (torch.tensor([[1.5, 2.0]]), ["1.5", "2"]),
        (torch.tensor([True, False]), ["True", "False"]),
        (torch.arange(8).reshape(2, 2, 2), list("01234567")),
        (torch.tensor([3], dtype=torch.uint8), ["3"]),
        (torch.tensor([float("nan"), float("inf")]), ["nan", "inf"]),
        (torch.tensor([1 / 3], requires_grad=True), ["0.333"]),
        (torch.tensor([0.5], dtype=torch.bfloat16), ["0.5"]),
    ],
)
def test_grids_show_each_number(tensor, numbers, figures):
    show_grids({"x": tensor}, **WORDS)
    texts = _texts(figures[0])
    assert [text for text in texts if text not in ("x", str(tuple(tensor.shape)))] == numbers
    assert {"x", str(tuple(tensor.shape))} <= set(texts)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1, 2, 2, 2)])
def test_grids_of_other_dimensions(shape):
    with pytest.raises(ValueError, match=r"x has shape .*: a grid shows one to three dimensions"):
        show_grids({"a": torch.ones(2), "x": torch.zeros(shape)}, **WORDS)


def test_signs_stand_between_grids(figures):
    x = torch.ones(2)
    show_grids({"a": x, "b": x, "c": x}, between=["+", "="], **WORDS)
    assert [text for text in _texts(figures[0]) if text in "+="] == ["+", "="]


def _cell_colors(fig):
    """The colours of the cells, row by row, of each grid in turn."""
    return [list(map(tuple, grid.get_facecolors().tolist())) for grid in fig.axes[0].collections]


def test_broadcasting_shows_what_is_imagined(figures):
    a, b = _pair()
    show_broadcast({"a": a, "b": b}, sign="+", result=a + b, **WORDS)
    numbers = [text for text in _texts(figures[0]) if text.isdecimal()]
    assert list(map(int, numbers)) == [
        *a.expand(3, 2).flatten().tolist(), *b.expand(3, 2).flatten().tolist(), *(a + b).flatten().tolist()
    ]  # fmt: skip
    pale = [color[3] < 1 for grid in _cell_colors(figures[0]) for color in grid]
    assert pale == [False, True] * 3 + [False] * 2 + [True] * 4 + [False] * 6


def test_shapes_that_do_not_broadcast():
    with pytest.raises(RuntimeError):
        show_broadcast({"a": torch.ones(2), "b": torch.ones(3)}, sign="+", result=torch.ones(1), **WORDS)


def test_reductions_share_a_colour(figures):
    show_reductions(torch.arange(12).reshape(2, 2, 3), **WORDS)
    colors = [color for grid in _cell_colors(figures[0]) for color in grid]
    assert [len(set(colors[i : i + 12])) for i in (0, 12, 24)] == [6, 6, 4]
    assert colors[0] == colors[6] != colors[3]  # dim 0: the same place in both tables
    assert colors[12] == colors[15] != colors[13]  # dim 1: the same column
    assert colors[24] == colors[25] != colors[27]  # dim 2: the same row


def test_reductions_need_enough_colours():
    with pytest.raises(IndexError, match="index 8 is out of bounds"):
        show_reductions(torch.ones(3, 9), **WORDS)


def test_storage_shows_memory_and_views_in_the_same_colours(figures):
    views = _views()
    show_storage(views, **WORDS)
    texts = _texts(figures[0])
    assert "shape (3, 2)\nstride (1, 3)\noffset 0" in texts
    assert "shape (3,)\nstride (2,)\noffset 1" in texts
    *drawn, memory = _cell_colors(figures[0])
    assert len(set(memory[:6])) == 6
    assert drawn == [[memory[i] for i in view.flatten().tolist()] for view in views.values()]


@pytest.mark.parametrize(
    "views",
    [
        {"a": torch.ones(2), "b": torch.ones(2)},
        {"a": torch.ones(2), "b": torch.ones(2).double()},
        {},
    ],
)
def test_storage_of_unrelated_tensors(views):
    with pytest.raises(ValueError, match="do not share one storage"):
        show_storage(views, **WORDS)


def test_storage_of_views_with_other_dtypes():
    x = torch.ones(2, 3)
    with pytest.raises(ValueError, match="do not share one storage and dtype"):
        show_storage({"a": x, "b": x.view(torch.int32)}, **WORDS)


# --- lines, descents, graphs -----------------------------------------------------------------------

AXES = {"xlabel": "step", "ylabel": "loss"}


def test_lines_and_points_are_drawn_as_given(figures):
    x = torch.arange(3.0, requires_grad=True)
    show_plot({"a": (range(3), x), "b": ([0, 2], [5, 7])}, points={"c": ([1], [2])}, **AXES, **WORDS)
    (fig,) = figures
    drawn = {line.get_label(): np.array(line.get_data()).tolist() for line in fig.axes[0].lines}
    assert drawn == {"a": [[0, 1, 2], [0, 1, 2]], "b": [[0, 2], [5, 7]]}
    (points,) = fig.axes[0].collections
    assert points.get_offsets().tolist() == [[1, 2]]
    assert points.get_facecolor()[0, :3].tolist() == [0, 0, 0]  # black beside lines
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["a", "b", "c"]
    assert (fig.axes[0].get_xlabel(), fig.axes[0].get_ylabel(), fig.get_suptitle()) == (
        "step", "loss", "a finding"
    )  # fmt: skip
    assert len({(line.get_linestyle(), line.get_linewidth()) for line in fig.axes[0].lines}) == 2


def test_axes_take_what_matplotlib_takes(figures):
    show_plot({"a": ([0.001, 1], [1, 10])}, xscale="log", ylim=(0, 20), **AXES, **WORDS)
    (ax,) = figures[0].axes
    assert (ax.get_xscale(), ax.get_yscale(), ax.get_ylim()) == ("log", "linear", (0, 20))


def test_paths_are_drawn_over_a_surface(figures):
    x, y = torch.linspace(-1, 1, 5), torch.linspace(-2, 2, 7)
    paths = {"SGD": ([-1.0, 0.5], [2.0, 1.0]), "Adam": ([-1.0, 0.0, 1.0], [2.0, 0.0, 1.0])}
    surface = x, y, x.square() + y[:, None].square()
    show_plot(paths, surface=surface, points={"start": (-1.0, 2.0)}, **AXES, **WORDS)
    (ax,) = figures[0].axes
    assert [tuple(map(list, line.get_data())) for line in ax.lines] == list(paths.values())
    assert {line.get_marker() for line in ax.lines} == {"o"}
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["SGD", "Adam", "start"]


@pytest.mark.parametrize("lines", [None, {}])
def test_a_plot_of_nothing_is_refused(lines):
    with pytest.raises(ValueError, match="there is nothing to plot: give lines"):
        show_plot(lines, **AXES, **WORDS)


def test_a_transposed_surface_is_refused():
    with pytest.raises(TypeError, match="number of columns in z"):
        show_plot(surface=(torch.ones(5), torch.ones(7), torch.rand(5, 7)), **AXES, **WORDS)


def _leaf(*values):
    return torch.tensor(values if len(values) > 1 else values[0], requires_grad=True)


def _boxes(fig):
    """The boxes: where each stands → its words."""
    boxes = [text for ax in fig.axes for text in ax.texts if text.get_bbox_patch() and text.get_text()]
    return {text.get_position(): text.get_text().replace("\n", "") for text in boxes}


def _arrows(fig):
    """The start and the end of each arrow, as the words in the boxes."""
    boxes = _boxes(fig)
    arrows = [text for text in fig.axes[0].texts if getattr(text, "arrow_patch", None)]
    return [(boxes[arrow.xyann], boxes[arrow.xy]) for arrow in arrows]


def test_the_graph_is_the_one_that_autograd_recorded(figures):
    w = _leaf(2.0)
    y = w**2
    show_graph(10 * y + 25, {"w": w, "y": y}, **WORDS)
    assert sorted(_arrows(figures[0])) == [
        ("AddBackward0", "MulBackward0"), ("MulBackward0", "PowBackward0"), ("PowBackward0", "AccumulateGrad")
    ]  # fmt: skip
    columns = {words: x for (x, _), words in _boxes(figures[0]).items()}
    assert sorted(columns, key=columns.get) == [
        "AccumulateGrad", "PowBackward0", "MulBackward0", "AddBackward0"
    ]  # fmt: skip
    assert {"w = 2", "y = 4"} <= set(_texts(figures[0]))


def test_a_tensor_used_twice_is_one_box_with_two_arrows(figures):
    w = _leaf(2.0)
    show_graph(w * w, **WORDS)
    assert len(_boxes(figures[0])) == 2
    assert _arrows(figures[0]) == [("MulBackward0", "AccumulateGrad")] * 2


def test_branches_of_a_graph(figures):
    a, b = _leaf(1.0, 2.0), _leaf(3.0, 4.0)
    show_graph((a.exp() + b).sum(), {"a": a, "b": b}, **WORDS)
    grad = "AccumulateGrad"
    assert sorted(_boxes(figures[0]).values()) == [grad, grad, "AddBackward0", "ExpBackward0", "SumBackward0"]
    assert {"a (2,)", "b (2,)"} <= set(_texts(figures[0]))
    assert len(_arrows(figures[0])) == 4


def test_several_graphs_stand_below_each_other(figures):
    a, b = _leaf(1.0), _leaf(2.0)
    show_graph({"first": a + 1, "second": b.exp().log()}, **WORDS)
    upper, lower = figures[0].axes
    assert upper.get_position().y0 > lower.get_position().y1 - 1e-9
    assert (upper.texts[0].get_text(), lower.texts[0].get_text()) == ("first", "second")
    assert sum(text.get_text() == "Accumulate\nGrad" for ax in (upper, lower) for text in ax.texts) == 2


def test_the_graph_can_still_be_walked(figures):
    w = _leaf(3.0)
    z = w**2
    show_graph(z, {"w": w}, **WORDS)
    z.backward()
    assert w.grad == 6


@pytest.mark.parametrize("tensor", [torch.ones(2), torch.ones(2, requires_grad=True)])
def test_a_graph_without_operations_is_refused(tensor):
    with pytest.raises(ValueError, match="no grad_fn: nothing was recorded for it"):
        show_graph(tensor, **WORDS)


def test_colours_of_the_course_are_distinct():
    assert len(set(plotting.COLORS)) == 8


def test_lines_without_places_are_drawn_from_the_first_on(figures):
    lines = {"a": [3.0, 2.0, 1.0], "b": torch.tensor([1.0, 2.0])}
    show_plot(lines, first=5, yscale="log", levels={"floor": 0.5}, **AXES, **WORDS)
    (ax,) = figures[0].axes
    a, b, floor = ax.lines
    assert list(a.get_xdata()) == [5, 6, 7]
    assert list(b.get_ydata()) == [1.0, 2.0]
    assert set(floor.get_ydata()) == {0.5}
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["a", "b", "floor"]


def test_sets_of_points_have_a_marker_and_a_colour_each(figures):
    show_plot(points={"a": ([1, 2], [3, 4]), "b": ([1], [2])}, **AXES, **WORDS)
    (ax,) = figures[0].axes
    a, b = ax.collections
    assert (a.get_offsets().tolist(), b.get_offsets().tolist()) == ([[1, 3], [2, 4]], [[1, 2]])
    assert a.get_paths()[0] != b.get_paths()[0]
    assert a.get_facecolor().tolist() != b.get_facecolor().tolist()


def test_signed_images_have_their_zero_in_the_middle(figures):
    show_images(torch.tensor([[[-1.0, 0.0]], [[3.0, 0.5]]]), signed=True, **WORDS)
    pictures = [ax.images[0] for ax in figures[0].axes if ax.images]
    assert [picture.get_clim() for picture in pictures] == [(-3.0, 3.0)] * 2
    assert {picture.get_cmap().name for picture in pictures} == {"PuOr"}


def test_signed_images_of_zeros_are_drawn(figures):
    show_images(torch.zeros(1, 2, 2), signed=True, **WORDS)
    assert figures[0].axes[0].images[0].get_clim() == (-1.0, 1.0)


def test_bars_show_their_numbers(figures):
    groups = {"before": [1, 20], "after": [3.5, 4]}
    plotting.show_bars(groups, ["a", "b"], xlabel="class", ylabel="count", **WORDS)
    (ax,) = figures[0].axes
    assert [bar.get_height() for bar in ax.patches] == [1, 20, 3.5, 4]
    middles = [bar.get_x() + bar.get_width() / 2 for bar in ax.patches]
    assert middles == pytest.approx([-0.2, 0.8, 0.2, 1.2])  # side by side over 0 and 1
    assert _texts(figures[0]) == ["1", "20", "3.5", "4"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b"]


def test_bars_have_errors_if_asked(figures):
    errors = {"one": [1.0, 2.0], "two": [0.5, 0.25]}
    groups = {"one": [5, 6], "two": [7, 8]}
    plotting.show_bars(groups, ["a", "b"], xlabel="class", ylabel="count", errors=errors, **WORDS)
    (ax,) = figures[0].axes
    drawn = [segment for bars in ax.collections for segment in bars.get_segments()]
    assert [(low, high) for (_, low), (_, high) in drawn] == [(4, 6), (4, 8), (6.5, 7.5), (7.75, 8.25)]


def test_bars_need_a_number_for_each_name():
    for values in ([1], [1, 2, 3]):  # of one value matplotlib would draw every bar
        with pytest.raises(ValueError, match="after: give 2 values, one for each name"):
            plotting.show_bars(
                {"before": [1, 2], "after": values}, ["a", "b"], xlabel="class", ylabel="count", **WORDS
            )
    with pytest.raises(ValueError, match="there are no bars: give groups"):
        plotting.show_bars({}, ["a", "b"], xlabel="class", ylabel="count", **WORDS)


def test_a_timeline_shows_each_piece(figures):
    rows = {"main": [(0, 3, "load 0"), (3, 1, "train 0")], "worker": [(1, 2, "load 1")]}
    plotting.show_timeline(rows, kinds=("load", "train"), xlabel="seconds", **WORDS)
    (ax,) = figures[0].axes
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(0, 3), (3, 1), (1, 2)]
    colors = [bar.get_facecolor() for bar in ax.patches]
    assert colors[0] == colors[2] != colors[1]
    assert _texts(figures[0]) == ["load\n0", "train\n0", "load\n1"]


def test_large_pictures_are_stored_with_fewer_colours(displayed):
    noise = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    show_images(noise, **WORDS)
    picture = Image.open(io.BytesIO(_png(displayed)))
    assert picture.mode == "P"
    assert picture.width == 800


def test_small_pictures_keep_their_colours(displayed):
    show_images(torch.zeros(2, 3, 4, 4), **WORDS)
    assert Image.open(io.BytesIO(_png(displayed))).mode in {"RGB", "RGBA"}


def test_white_paper_stays_white_beside_many_light_colours(displayed):
    light = 0.97 + 0.03 * torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    show_images(light, **WORDS)
    picture = Image.open(io.BytesIO(_png(displayed)))
    assert picture.mode == "P"
    pixels = np.asarray(picture.convert("RGB"))
    assert (pixels[[0, -1]] == 255).all()
    assert (pixels < 255).any(axis=2).mean() > 0.3


def test_panels_share_their_axes_and_colours(figures):
    panels = {
        "A": {"training": [3, 2], "validation": [4.0, 5.0]},
        "B": {"training": [1, 1], "validation": [9, 0]},
    }
    plotting.show_panels(panels, first=1, **AXES, **WORDS)
    axes = figures[0].axes
    assert [ax.get_title() for ax in axes] == ["A", "B"]
    assert axes[0].get_ylim() == axes[1].get_ylim()
    for ax, lines in zip(axes, panels.values(), strict=True):
        assert [line.get_ydata().tolist() for line in ax.lines] == [list(values) for values in lines.values()]
        assert [line.get_xdata().tolist() for line in ax.lines] == [[1, 2], [1, 2]]
        assert [line.get_color() for line in ax.lines] == [line.get_color() for line in axes[0].lines]


def test_panels_take_places_and_a_logarithmic_axis(figures):
    panels = {"A": {"train": [3.0, 0.1], "valid": ([20, 40], [4.0, 0.5])}}
    plotting.show_panels(panels, yscale="log", **AXES, **WORDS)
    (ax,) = figures[0].axes
    assert ax.get_yscale() == "log"
    assert [line.get_xdata().tolist() for line in ax.lines] == [[0, 1], [20, 40]]


@pytest.mark.parametrize("panels", [{}, {"A": {"a": [1]}, "B": {"b": [1]}}])
def test_panels_with_other_lines_are_refused(panels):
    with pytest.raises(ValueError, match="have the same names"):
        plotting.show_panels(panels, **AXES, **WORDS)
