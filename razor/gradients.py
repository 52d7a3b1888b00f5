"""Gradients of the forget and retain losses, reduced to four sums per unit as soon as they exist.

The floor is two forwards and two backwards with weight gradients for the candidate parameters only, and this stays
near it: other parameters need no gradient, and a retain gradient is reduced and dropped the moment it is complete. A
forget gradient that a card has no room for, or that is large beside the rest, waits in the computer's memory. Of
several processes each holds its gradients until the backward is done, and they are summed then.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from razor import processes
from razor.adapters.base import Terms
from razor.errors import UnusableGradientError
from razor.memory import enough_memory, put_aside
from razor.patches import model_lock
from razor.units import Unit, parameters_of

ADVICE = "Take fewer pictures a step (the setting batch), leave towers out, or load the model in half precision"
HALF_SCALE = 4096.0  # losses of float16 models are multiplied by this on their way back


@dataclass(frozen=True)
class UnitStats:
    """What scoring needs of one unit: norms of its gradients and weights, and the gradients' inner product."""

    unit: Unit
    forget_norm: float  # ||g_f||, g_f the gradient of the loss that is ascended
    retain_norm: float  # ||g_r||
    weight_norm: float  # ||theta||
    dot: float  # <g_f, g_r>
    size: int  # numbers in the unit

    @property
    def cosine(self) -> float:
        """cos(g_f, g_r), in -1..1; 0 when either gradient is zero."""
        length = self.forget_norm * self.retain_norm
        return max(-1.0, min(1.0, self.dot / length)) if length > 0 else 0.0


@contextmanager
def trainable(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, nn.Parameter]]:
    """Let gradients flow to these parameters only, for the length of the block; leaves flags and .grad as found."""
    parameters = dict(model.named_parameters())
    chosen = {name: parameters[name] for name in names}
    before = [(p, p.requires_grad, p.grad) for p in parameters.values()]
    try:
        for p in parameters.values():
            p.requires_grad_(False)
        for p in chosen.values():
            p.requires_grad_(True)
            p.grad = None
        yield chosen
    finally:
        for p, flag, grad in before:
            p.requires_grad_(flag)
            p.grad = grad


def collect(
    model: nn.Module,
    units: Sequence[Unit],
    terms: Terms,
    *,
    kept: dict[str, tuple[Tensor, Tensor]] | None = None,
    sparing: bool = False,
) -> list[UnitStats]:
    """One backward over the forget loss, one over the retain loss; leaves the model as found.

    Args:
        terms: "forget" gives A_f, "retain" gives R (see losses.py for the signs).
        kept: filled with (g_f, g_r) by parameter where given; a pass that keeps them needs one more gradient of memory.
        sparing: beside a card, g_f waits in the computer's memory though the card may have room; not where it is kept.

    Returns:
        The stats of each unit, in the order given. Units the losses do not reach have zero gradients.

    Raises:
        UnusableGradientError: a loss or a gradient is NaN or infinite.
    """
    by_parameter: dict[str, list[tuple[int, Callable[[Tensor], Tensor]]]] = {}
    for i, unit in enumerate(units):
        for part in unit.slices:
            by_parameter.setdefault(part.parameter, []).append((i, part.view))
    forget: dict[str, Tensor] = {}
    device = next(model.parameters()).device  # a model may be spread over several
    # |g_f|^2, |g_r|^2, |theta|^2, <g_f, g_r>; on the model's device, so that nothing waits for it before the end
    sums = torch.zeros(len(units), 4, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)

    def reduce_forget(name: str, grad: Tensor) -> None:
        forget[name] = grad if stays else put_aside(grad)
        for i, view in by_parameter[name]:
            sums[i, 0] += unscaled(view(grad), scale).float().square().sum().to(device)

    def reduce_retain(name: str, grad: Tensor) -> None:
        g_f = forget.pop(name, None)
        if kept is not None:
            there = torch.zeros_like(grad) if g_f is None else g_f
            kept[name] = unscaled(there, scale), unscaled(grad, scale)
        for i, view in by_parameter[name]:
            part = unscaled(view(grad), scale).float()
            sums[i, 1] += part.square().sum().to(device)
            if g_f is not None:
                sums[i, 3] += (unscaled(view(g_f).to(part.device), scale) * part).sum().to(device)

    with model_lock(model), trainable(model, parameters_of(units)) as parameters:
        scale = loss_scale(parameters.values())
        stays = kept is not None or (not sparing and gradient_fits(parameters))
        _backward(parameters, terms["forget"], scale, reduce_forget, "forget")
        _backward(parameters, terms["retain"], scale, reduce_retain, "retain")
        if kept is not None:
            alone = {name: unscaled(grad, scale) for name, grad in forget.items()}
            kept |= {name: (grad, torch.zeros_like(grad)) for name, grad in alone.items()}
        for name, places in by_parameter.items():
            for i, view in places:
                sums[i, 2] += view(parameters[name].detach()).float().square().sum().to(device)
        sizes = [unit.size(parameters) for unit in units]
    sums = sums.cpu()
    for i, unit in enumerate(units):
        for column, side in ((0, "forget"), (1, "retain")):
            if not math.isfinite(sums[i, column]):
                raise UnusableGradientError(
                    f"The {side} gradient of {unit.name!r} has NaN or infinite values; scores need finite ones. "
                    "Check the pictures, or run the model in float32."
                )
    rows = zip(units, sums.tolist(), sizes, strict=True)
    return [UnitStats(u, f**0.5, r**0.5, w**0.5, dot, size) for u, (f, r, w, dot), size in rows]


def gradient_fits(parameters: Mapping[str, Tensor]) -> bool:
    """Whether a third of the memory free on the card holds a gradient of these; else it waits in the computer's own.

    The other gradient may take as much while autograd gathers it over the parts of a batch. A CPU has one memory: there
    it always fits.
    """
    wanted: dict[torch.device, int] = {}
    for p in parameters.values():
        wanted[p.device] = wanted.get(p.device, 0) + p.element_size() * p.numel()
    return all(3 * size <= _free(place) for place, size in wanted.items() if place.type == "cuda")


def _free(card: torch.device) -> int:
    """Bytes free on a card, those that torch holds without using them among them."""
    held = torch.cuda.memory_reserved(card) - torch.cuda.memory_allocated(card)
    return torch.cuda.mem_get_info(card)[0] + held


def gradient_of(
    model: nn.Module, units: Sequence[Unit], loss: Callable[[], Tensor], side: str
) -> tuple[float, list[list[Tensor]]]:
    """The loss and, per unit, its gradient as one tensor per slice; leaves the model as found.

    Raises:
        UnusableGradientError: the loss or a gradient is NaN or infinite.
    """
    kept: dict[str, Tensor] = {}

    with trainable(model, parameters_of(units)) as parameters:
        scale = loss_scale(parameters.values())
        value = _backward(parameters, loss, scale, kept.__setitem__, side)
        grads = {
            name: unscaled(kept.pop(name), scale) if name in kept else torch.zeros_like(p)
            for name, p in parameters.items()
        }
    if not all(grad.isfinite().all() for grad in grads.values()):
        raise UnusableGradientError(f"The {side} gradient has NaN or infinite values; use a smaller step.")
    return value, [unit.views(grads) for unit in units]


def loss_scale(weights: Iterable[Tensor]) -> float:
    """What a loss is multiplied by on its way back to these: in float16 small gradients would vanish.

    A power of two, which changes no other bit.
    """
    return HALF_SCALE if any(p.dtype == torch.float16 for p in weights) else 1


def unscaled(grad: Tensor, scale: float) -> Tensor:
    """The gradient of the loss, from that of `scale` times the loss; in float32 where they differ."""
    return grad if scale == 1 else grad.float() / scale


def _backward(
    parameters: dict[str, nn.Parameter],
    loss: Callable[[], Tensor],
    scale: float,
    use: Callable[[str, Tensor], None],
    side: str,
) -> float:
    """Run `scale` times a loss backward and hand each parameter's gradient to `use` as it is complete."""
    waiting: dict[str, Tensor] = {}  # for the other processes, which may come to weights in another order

    def hand_over(p: Tensor, name: str) -> None:
        grad, p.grad = p.grad.detach(), None
        if processes.count() > 1:
            waiting[name] = grad
        else:
            use(name, grad)

    hooks = [
        p.register_post_accumulate_grad_hook(lambda p, name=name: hand_over(p, name)) for name, p in parameters.items()
    ]
    try:
        with enough_memory("taking gradients", ADVICE):
            with torch.enable_grad():
                value = loss()
                scaled = value * scale / processes.count()
            if not value.isfinite():
                raise UnusableGradientError(f"The {side} loss is {value.item()}; scores need a finite one.")
            if value.requires_grad:
                scaled.backward()
                for name, p in parameters.items() if processes.count() > 1 else ():
                    grad = waiting.pop(name) if name in waiting else torch.zeros_like(p)
                    grad = processes.summed(grad)
                    use(name, grad)
            return value.item()
    finally:
        for hook in hooks:
            hook.remove()
