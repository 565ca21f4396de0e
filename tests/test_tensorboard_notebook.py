"""What chapter 08 logs is what its event files hold: every kind of summary, read back and compared."""

import io
import json
import os
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from google.protobuf import text_format
from notebook_tools import NOTEBOOKS, code_cells, read_notebook, tags
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.util.tensor_util import make_ndarray
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.tensorboard import SummaryWriter

from course_utils.exercises import summaries

NB = read_notebook(NOTEBOOKS / "08_tensorboard.ipynb")
LAST = "board.close()"  # the cell that ends the logging
SLOW = ("SCRIPT", "12_000")  # cells that take long and log nothing that is needed here
EVERYTHING = {"scalars": 0, "images": 0, "audio": 0, "histograms": 0, "tensors": 0}


def run_cells(names: dict, until: str, leave_out: tuple[str, ...] = ()) -> None:
    """Run the chapter's cells up to the one that holds a text, without exercises and the live cell."""
    for index, cell in code_cells(NB):
        if {"exercise", "nbval-skip", "setup"}.isdisjoint(tags(cell)):
            if not any(text in cell.source for text in leave_out):
                exec(compile(cell.source, f"{NB.cells[index].id}", "exec"), names)
            if until in cell.source:
                return


@pytest.fixture(scope="module")
def built() -> Iterator[dict]:
    """The chapter's names after its logging, with the figure and the model at the time of each call."""
    names: dict = {"seen": {}}
    patch = pytest.MonkeyPatch()
    patch.chdir(NOTEBOOKS)
    threads = torch.get_num_threads()
    for module in ("plotting", "diagrams"):
        patch.setattr(f"course_utils.{module}.show", lambda fig, alt: plt.close(fig))

    for kind in ("scalar", "image", "images", "figure", "histogram", "pr_curve", "hparams", "text", "audio"):
        watch(patch, names["seen"], kind)
    try:
        run_cells(names, LAST, SLOW)
        yield names
    finally:
        patch.undo()
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
        if "workplace" in names:
            names["workplace"].cleanup()


def watch(patch: pytest.MonkeyPatch, seen: dict, kind: str) -> None:
    """Note what is given to `add_<kind>`, as it is at that moment."""
    method = getattr(SummaryWriter, f"add_{kind}")

    def noted(self: SummaryWriter, *args: object, **kwargs: object) -> object:
        run = Path(self.get_logdir()).name
        name = kwargs["run_name"] if kind == "hparams" else args[0]
        given = [kept(value) for value in (*args[kind != "hparams" :], *kwargs.values())]
        seen.setdefault((kind, run, name), []).append(given)
        return method(self, *args, **kwargs)

    patch.setattr(SummaryWriter, f"add_{kind}", noted)


def kept(value: object) -> object:
    """A copy of what is logged; of a figure its pixels."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, plt.Figure):
        for _ in range(3):  # the layout settles
            value.canvas.draw()
        return np.asarray(value.canvas.buffer_rgba())[..., :3].copy()
    return value


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance=EVERYTHING).Reload()


def png(event) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(event.encoded_image_string)))


def test_scalars(built: dict) -> None:
    logged = {key: calls for key, calls in built["seen"].items() if key[0] == "scalar"}
    runs = {path.name: path for path in built["logs"].glob("rates/*")}
    checked = 0
    for (_, run, tag), calls in logged.items():
        if run in runs:
            read = events(runs[run]).Scalars(tag)
            assert [e.step for e in read] == [step for _, step in calls]
            assert [e.value for e in read] == [np.float32(value) for value, _ in calls]
            checked += 1
    assert checked == 4 * 5  # four runs, five tags in each


def test_add_scalars(built: dict) -> None:
    both = built["scratch"] / "both"
    for name, values in {"loss_train": [1, 1 / 2, 1 / 3], "loss_valid": [1, 2 / 3, 2 / 4]}.items():
        read = events(both / name).Scalars("loss")
        assert [(e.step, e.value) for e in read] == list(enumerate(map(np.float32, values)))


def test_image_and_figure(built: dict) -> None:
    board = events(built["logs"] / "board")
    for tag in ("one digit", "digits/grid"):
        ((picture, step),) = built["seen"]["image", "board", tag]
        (event,) = board.Images(tag)
        channels = (picture * 255).clamp(0, 255).to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0)
        assert event.step == step
        assert np.array_equal(png(event), channels.numpy())
    ((pixels, _),) = built["seen"]["figure", "board", "confusion"]
    shown = png(board.Images("confusion")[0]).astype(int)
    assert (shown != pixels).any(axis=2).mean() < 0.02, "more than the layout's last pixel differs"
    assert pixels.std() > 10


def test_images(built: dict) -> None:
    ((batch, _),) = built["seen"]["images", "board", "digits/batch"]
    (event,) = events(built["logs"] / "board").Images("digits/batch")
    picture = png(event)[..., 0]
    for i, digit in enumerate((batch[:, 0] * 255).to(torch.uint8).numpy()):
        row, column = divmod(i, picture.shape[1] // 8)
        assert np.array_equal(picture[8 * row : 8 * row + 8, 8 * column : 8 * column + 8], digit)


def test_histograms(built: dict) -> None:
    for name in ("awake", "asleep"):
        read = events(built["logs"] / "histograms" / name)
        for tag in ("hidden/weight", "hidden/gradient"):
            calls = built["seen"]["histogram", name, tag]
            assert [e.step for e in read.Histograms(tag)] == [step for _, step in calls] == [0, 5, 10]
            for event, (tensor, _) in zip(read.Histograms(tag), calls, strict=True):
                value, numbers = event.histogram_value, tensor.numpy().ravel()
                assert (value.num, value.min, value.max) == (numbers.size, numbers.min(), numbers.max())
                assert np.isclose(value.sum, numbers.sum())
                assert np.isclose(value.sum_squares, numbers @ numbers)
                assert sum(value.bucket) == numbers.size
                for limit, below in zip(value.bucket_limit, np.cumsum(value.bucket), strict=True):
                    assert (numbers < limit).sum() <= below <= (numbers <= limit).sum()


def test_graph(built: dict) -> None:
    nodes = {node.name: node for node in events(built["logs"] / "board").Graph().node}
    operations = [node.op for node in nodes.values() if node.op.startswith("aten::")]
    assert operations == ["aten::flatten", "aten::linear", "aten::relu", "aten::linear"]
    shapes = [
        [dim.size for dim in node.attr["_output_shapes"].list.shape[0].dim]
        for node in nodes.values()
        if node.op in ("aten::linear", "aten::relu")
    ]
    assert shapes == [[1, 64], [1, 64], [1, 10]]


def test_text_audio_and_layout(built: dict) -> None:
    board = events(built["logs"] / "board")
    ((text, _),) = built["seen"]["text", "board", "about"]
    assert board.Tensors("about/text_summary")[0].tensor_proto.string_val == [text.encode()]
    ((sound, *_),) = built["seen"]["audio", "board", "beep"]
    with wave.open(io.BytesIO(board.Audio("beep")[0].encoded_audio_string)) as file:
        heard = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2") / 32767
        assert file.getframerate() == 8000
    assert np.abs(heard - sound.numpy().ravel()).max() < 1e-3
    layout = Layout.FromString(board.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert [(c.title, list(c.chart[0].multiline.tag)) for c in layout.category] == [
        ("loss", ["loss/train", "loss/valid"])
    ]


def test_embedding(built: dict) -> None:
    board = built["logs"] / "board"
    config = text_format.Parse((board / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    vectors = np.loadtxt(board / embedding.tensor_path, delimiter="\t")
    assert np.allclose(vectors, built["hidden"].numpy(), rtol=1e-6)
    names = (board / embedding.metadata_path).read_text().split()
    assert names == [str(n) for n in built["y_valid"][:200].tolist()]
    sprite = np.array(Image.open(board / embedding.sprite.image_path))[..., 0]
    pictures = (built["x_valid"][:200, 0] * 255).numpy()
    for i in (0, 7, 199):
        row, column = divmod(i, sprite.shape[1] // 8)
        cut = sprite[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert np.abs(cut - pictures[i]).max() <= 1


def test_pr_curves(built: dict) -> None:
    board = events(built["logs"] / "board")
    thresholds = torch.arange(127) / 126
    for digit in range(10):
        ((targets, probabilities, step),) = built["seen"]["pr_curve", "board", f"digit/{digit}"]
        (event,) = board.Tensors(f"digit/{digit}")
        assert event.step == step == 60
        table = make_ndarray(event.tensor_proto)
        called = (probabilities * 126).floor()[:, None] >= torch.arange(127)
        tp = (called & targets[:, None]).sum(0).numpy()
        fp = (called & ~targets[:, None]).sum(0).numpy()
        fn = int(targets.sum()) - tp
        assert np.array_equal(table[:4], [tp, fp, len(targets) - tp - fp - fn, fn])
        logits = built["logits"]
        mine = summaries.pr_points.reference(logits, built["y_valid"], digit, thresholds.to(logits.dtype))
        assert np.allclose(table[4:], torch.stack(mine).numpy(), atol=0.02)


def test_hparams(built: dict) -> None:
    trials = {key[2]: calls for key, calls in built["seen"].items() if key[:2] == ("hparams", "trials")}
    assert len(trials) == 6
    for name, ((config, metrics, _),) in trials.items():
        read = events(built["logs"] / "trials" / name)
        data = read.PluginTagToContent("hparams")["_hparams_/session_start_info"]
        stored = HParamsPluginData.FromString(data).session_start_info.hparams
        stored = {key: getattr(value, value.WhichOneof("kind")) for key, value in stored.items()}
        assert stored == {key: value for key, value in config.items() if value is not None}
        for tag, value in metrics.items():
            assert [e.value for e in read.Scalars(tag)] == [np.float32(value)]


# What the chapter says about the library


def test_the_sealed_runs_differ_from_a_healthy_one_in_one_argument() -> None:
    assert [len(settings) for settings in summaries.SEALED.values()] == [1] * 6
    assert len({json.dumps(settings) for settings in summaries.SEALED.values()}) == 6


def test_agrees_knows_the_faults() -> None:
    faults = summaries.name_the_faults.reference()
    assert summaries.agrees(faults)
    assert not summaries.agrees(faults | {"A": faults["B"]})


def test_an_unclosed_writer_loses_no_more_than_the_end_of_a_long_run(tmp_path: Path) -> None:
    script = "import sys; from torch.utils.tensorboard import SummaryWriter; w = SummaryWriter(sys.argv[1])"
    loop = "\nfor i in range(300): w.add_scalar('x', i, i)\nimport os; os._exit(0)"
    subprocess.run([sys.executable, "-c", script + loop, tmp_path], check=True, env=dict(os.environ))
    assert 285 < len(events(tmp_path).Scalars("x")) <= 300, "the queue holds ten"


def test_a_writer_keeps_no_graph(tmp_path: Path) -> None:
    weight = torch.ones(3, requires_grad=True)
    inner = weight.exp()  # the graph keeps this for backward
    storage, loss = StorageWeakRef(inner.untyped_storage()), inner.sum()
    del inner
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("loss", loss, 0)
        assert not storage.expired()
        del loss
        assert storage.expired()


def test_smoothing_is_a_mean_of_the_past(built: dict) -> None:
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))
    for weight in (0.0, 0.6, 0.95):
        mine = summaries.smooth.reference(values.tolist(), weight)
        assert torch.allclose(
            torch.tensor(mine), built["mean_of_the_past"](values.double(), weight), atol=1e-6
        )


def test_the_writer_of_several_files_reads_in_order(tmp_path: Path) -> None:
    for start in (0, 3):
        with SummaryWriter(tmp_path) as writer:
            for step in range(start, start + 3):
                writer.add_scalar("x", F.relu(torch.tensor(float(step))), step)
    assert [e.step for e in events(tmp_path).Scalars("x")] == list(range(6))
