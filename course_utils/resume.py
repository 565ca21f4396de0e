"""The state of a run: what it needs to go on after a stop, and end with the same bits.

That holds on the CPU, on a GPU with deterministic algorithms, at the end of an epoch, and if workers of a
`DataLoader` start anew in each epoch: persistent ones keep random states of their own, out of reach.
"""

import copy
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from course_utils.safe_files import CheckpointError, cause


def training_state(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    scheduler: Any = None,
    scaler: torch.amp.GradScaler | None = None,
    history: Any = None,
    early_stopping: Any = None,
    generator: torch.Generator | None = None,
) -> dict[str, Any]:
    """Return what a run needs to go on to the same bits, for `save_checkpoint`.

    Workers that stay (`persistent_workers=True`) are not in it, see the top of this module. The tensors are
    the live ones, which training changes: save them at once.

    Args:
        generator: that of the training `DataLoader`, which shuffles.
    """
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    parts |= {"history": history, "early_stopping": early_stopping}
    parts = {name: part for name, part in parts.items() if part is not None}
    state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
    if generator is not None:
        parts["generator"], state["generator"] = generator, generator.get_state()
    state["kinds"] = {
        name: f"{'' if len(state[name]) else 'disabled '}{type(part).__name__}"  # as a GradScaler may be
        for name, part in parts.items()
        if name != "model"
    }
    state["parameters"] = _names(model, optimizer)
    state["random"] = _random_states()
    return state


def restore_training(
    state: Mapping[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    *,
    scheduler: Any = None,
    scaler: torch.amp.GradScaler | None = None,
    history: Any = None,
    early_stopping: Any = None,
    generator: torch.Generator | None = None,
) -> None:
    """Bring a run back to where `training_state` saw it, with every random state of Python, NumPy and torch.

    Give the same parts as there. The states of GPUs' random numbers are set where there are as many GPUs.

    Raises:
        CheckpointError: the state does not fit. Then nothing has been changed.
    """
    parts = {"scheduler": scheduler, "scaler": scaler, "history": history}
    parts |= {"early_stopping": early_stopping, "generator": generator}
    now = training_state(model, optimizer, **parts)
    parts = {"model": model, "optimizer": optimizer, **parts}
    before = None
    try:
        _check(state, now)
        before = _copied(now)
        _restore(state, parts)
    except BaseException as error:  # also Ctrl-C
        if before is not None:
            _restore(before, parts)
        if isinstance(error, CheckpointError) or not isinstance(error, Exception):
            raise
        raise CheckpointError(
            "the state does not fit, and nothing was changed. Use another checkpoint. "
            f"Cause: {type(error).__name__}: {cause(error)}"
        ) from error


def check_weights(saved: Mapping[str, torch.Tensor], model: Mapping[str, torch.Tensor]) -> None:
    """See that the names and shapes of a saved model are those of the given one."""
    wrong = {
        "Missing in the checkpoint": [name for name in model if name not in saved],
        "Unknown to the model": [name for name in saved if name not in model],
        "Of another shape": [
            f"{name} (saved {_shape(saved[name])}, model {_shape(model[name])})"
            for name in model
            if name in saved and _shape(saved[name]) != _shape(model[name])
        ],
    }
    found = [
        f"{what}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}."
        for what, names in wrong.items()
        if names
    ]
    if found:
        raise CheckpointError(f"the weights are those of another model: make the same. {' '.join(found)}")


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of a tensor; None for what `get_extra_state` may return instead."""
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _copied(state: Any) -> Any:
    """A deep copy with all tensors on the CPU: a GPU may have no room for it."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        copied = copy.copy(state)  # with what torch keeps beside the weights of a model
        copied.update((name, _copied(value)) for name, value in state.items())
        return copied
    if type(state) in (list, tuple):
        return type(state)(map(_copied, state))
    return copy.deepcopy(state)


def _check(state: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """See that a state was made of the same parts as that of now: torch loads some of the others, too."""
    if missing := {"model", "kinds", "parameters", "random"} - set(state):
        raise CheckpointError(f"the state has no {', '.join(sorted(missing))}: make it by training_state.")
    check_weights(state["model"], now["model"])
    for name in sorted({*state["kinds"], *now["kinds"]}):
        saved, given = state["kinds"].get(name), now["kinds"].get(name)
        if saved != given:
            raise CheckpointError(
                f"{name}: the checkpoint holds {saved or 'none'}, given was {given or 'none'}. Restore with "
                "the same parts as those that were saved."
            )
    if state["parameters"] != now["parameters"]:
        raise CheckpointError(
            "the optimizer has other parameters than that of the checkpoint, or in another order or other "
            "groups. Make it as it was made there."
        )


def _restore(state: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Load each part, then the random states, which loading could move."""
    for name, part in parts.items():
        if part is not None and name != "generator":
            part.load_state_dict(state[name])
    if parts["generator"] is not None:
        parts["generator"].set_state(state["generator"].cpu())
    states = state["random"]
    kind, keys, *rest = states["numpy"]
    random.setstate(states["python"])
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if len(states.get("cuda", [])) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all([cuda.cpu() for cuda in states["cuda"]])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"].cpu())


def _random_states() -> dict[str, Any]:
    """The states of all global generators, as types that `weights_only=True` loads."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global generator
    states = {"python": random.getstate(), "torch": torch.get_rng_state()}
    states["numpy"] = (kind, torch.from_numpy(keys.astype(np.int64)), *rest)
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def _names(model: nn.Module, optimizer: Optimizer) -> list[list[str]]:
    """The names of the parameters in each group of the optimizer."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = (group["params"] for group in optimizer.param_groups)
    return [[names.get(id(parameter), "not of the model") for parameter in group] for group in groups]
