"""An edit as a value: what to add to which slices of a model. Applying it is temporary and undone bit for bit."""

import hashlib
import json
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from razor.errors import OtherWeightsError, PatchError
from razor.units import Slice

_LOCKS: "weakref.WeakKeyDictionary[nn.Module, threading.RLock]" = weakref.WeakKeyDictionary()
_LOCKS_GUARD = threading.Lock()


def model_lock(model: nn.Module) -> threading.RLock:
    """The one lock that guards a base model's weights; hold it for any forward that must not see another's edit."""
    with _LOCKS_GUARD:
        return _LOCKS.setdefault(model, threading.RLock())


@dataclass(frozen=True)
class Patch:
    """Deltas by slice, on the CPU, float32. An empty patch is a real patch that changes nothing."""

    deltas: Mapping[Slice, Tensor] = field(default_factory=dict)  # shaped like the slice
    recipe: Mapping = field(default_factory=dict)  # how it came about; rides in the file's header
    base: Mapping[str, str] = field(default_factory=dict)  # parameter -> sha256 of the weights it was made for

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """Edit the model for the length of the block, alone; every bit is put back, also when the body raises.

        >>> line = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.ones_(line.weight)
        >>> patch = Patch({Slice("weight", dim=1, start=1, stop=2): torch.tensor([[-0.75]])})  # its second column
        >>> with patch.applied(line):
        ...     line.weight.tolist()
        [[1.0, 0.25]]
        >>> with patch.scaled(2).applied(line):
        ...     line.weight.tolist()
        [[1.0, -0.5]]
        >>> line.weight.tolist()
        [[1.0, 1.0]]

        Raises:
            PatchError: the model lacks a parameter of this patch or has it in another shape.
        """
        with model_lock(model):
            parameters = dict(model.named_parameters())
            self._check_shapes(parameters)
            saved: list[tuple[Tensor, Tensor]] = []
            try:
                with torch.no_grad():
                    for where, delta in self.deltas.items():
                        view = where.view(parameters[where.parameter])
                        saved.append((view, view.detach().clone()))
                        view.add_(delta.to(view.device, torch.float32).to(view.dtype))
                yield model
            finally:
                with torch.no_grad():
                    for view, original in reversed(saved):
                        view.copy_(original)

    def __add__(self, other: "Patch") -> "Patch":
        """Both edits at once; deltas of the same slice add up."""
        deltas = dict(self.deltas)
        for where, delta in other.deltas.items():
            deltas[where] = deltas[where] + delta if where in deltas else delta
        return Patch(deltas, self.recipe or other.recipe, {**self.base, **other.base})

    def scaled(self, strength: float) -> "Patch":
        """The same edit at another strength; 0 undoes it, 1 is the edit itself."""
        return Patch({where: delta * strength for where, delta in self.deltas.items()}, self.recipe, self.base)

    def only(self, slices: Iterable[Slice]) -> "Patch":
        """The part of the edit on these slices."""
        return Patch({where: self.deltas[where] for where in slices if where in self.deltas}, self.recipe, self.base)

    def with_recipe(self, recipe: Mapping) -> "Patch":
        """The same edit carrying this recipe."""
        return Patch(self.deltas, recipe, self.base)

    def bound_to(self, model: nn.Module) -> "Patch":
        """The same edit, remembering the weights it was made for, so that another model is refused."""
        return Patch(self.deltas, self.recipe, _digests(model, {where.parameter for where in self.deltas}))

    def check(self, model: nn.Module) -> None:
        """Raise PatchError unless the patch fits, OtherWeightsError unless these are the weights it was made for."""
        parameters = dict(model.named_parameters())
        self._check_shapes(parameters)
        found = _digests(model, set(self.base) & set(parameters))
        if wrong := [name for name, digest in self.base.items() if found.get(name) != digest]:
            first, model = wrong[0], self.recipe.get("model")
            maker = repr(model.get("name")) if isinstance(model, Mapping) else "the model"
            raise OtherWeightsError(
                f"This patch was made for another model: {len(wrong)} of the {len(self.base)} weights it edits are not "
                f"those it was computed on, the weights of {first!r} first (hash {found.get(first, 'none')[:8]} here, "
                f"{self.base[first][:8]} there). Load {maker} it was made for."
            )

    def key(self, belongs: Callable[[str], bool] = lambda parameter: True) -> str:
        """A hash of the deltas of some parameters: equal for equal edits of them."""
        found = hashlib.sha256()
        for where in sorted((w for w in self.deltas if belongs(w.parameter)), key=repr):
            found.update(repr(where).encode())
            found.update(digest(self.deltas[where]).encode())
        return found.hexdigest()[:16]

    @property
    def parameters_edited(self) -> int:
        """How many numbers the edit changes."""
        return sum(delta.numel() for delta in self.deltas.values())

    def save(self, path: Path) -> int:
        """Write a safetensors file with slices, recipe and weight hashes in its header; returns its size in bytes."""
        tensors = {f"delta.{i}": delta.contiguous() for i, delta in enumerate(self.deltas.values())}
        slices = [[s.parameter, s.dim, s.start, s.stop] for s in self.deltas]
        header = {"format": "razor-patch-1", "slices": json.dumps(slices), "base": json.dumps(dict(self.base))}
        save_file(tensors, path, header | {"recipe": json.dumps(dict(self.recipe))})
        return Path(path).stat().st_size

    @classmethod
    def load(cls, path: Path) -> "Patch":
        """Read a patch written by `save`.

        Raises:
            PatchError: the file is missing, broken, or not a patch.
        """
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata() or {}
                if header.get("format") != "razor-patch-1":
                    raise PatchError(
                        f"{Path(path).name} is not a RAZOR patch; expected the patch.safetensors of a run."
                    )
                deltas = {where: file.get_tensor(f"delta.{i}") for i, where in enumerate(_slices(header["slices"]))}
            recipe, base = (json.loads(header[key]) for key in ("recipe", "base"))
            if not isinstance(recipe, dict) or not isinstance(base, dict):
                raise ValueError("its recipe or its hashes are no JSON object")
            _check_recipe(recipe)
            _check_deltas(deltas)
            return cls(deltas, recipe, base)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise PatchError(f"Cannot read the patch {Path(path).name}: {error}. Give a patch.safetensors.") from error

    def _check_shapes(self, parameters: Mapping[str, Tensor]) -> None:
        for where, delta in self.deltas.items():
            tensor = parameters.get(where.parameter)
            fits = tensor is not None and (where.stop is None or _inside(where, tensor))
            if not fits or where.view(tensor).shape != delta.shape:
                raise PatchError(
                    f"This patch was made for another model: it edits {where.parameter!r}, "
                    f"which here {'has another shape' if tensor is not None else 'does not exist'}."
                )


def _inside(where: Slice, tensor: Tensor) -> bool:
    return 0 <= where.dim < tensor.ndim and 0 <= where.start < where.stop <= tensor.shape[where.dim]


def _slices(text: str) -> list[Slice]:
    """The slices a header names. Raises ValueError where one cannot be."""
    entries = json.loads(text)
    if not isinstance(entries, list):
        raise ValueError("its slices are no list")
    for entry in entries:
        if not _is_slice(entry):
            raise ValueError(f"its slice {str(entry)[:80]!r} is not [parameter, axis, start, stop]")
    slices = [Slice(*entry) for entry in entries]
    if len(set(slices)) < len(slices):
        raise ValueError("it names a slice twice")
    return slices


def _is_slice(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 4:
        return False
    name, dim, start, stop = entry
    whole = [dim, start] if stop is None else [dim, start, stop]
    counts = all(type(number) is int and number >= 0 for number in whole)  # True is no number here
    return isinstance(name, str) and counts and (stop is None or start < stop)


def _check_recipe(recipe: Mapping) -> None:
    """Raise ValueError where what an export looks up in a recipe is not of its kind."""
    task = recipe.get("task") or {}
    origin = task.get("origin") if isinstance(task, Mapping) else None
    for place, found in (("model", recipe.get("model")), ("task", task), ("task.origin", origin)):
        if not isinstance(found or {}, Mapping):
            raise ValueError(f"{place} in its recipe is {str(found)[:40]!r}, not a JSON object")


def _check_deltas(deltas: Mapping[Slice, Tensor]) -> None:
    """Raise ValueError where a delta is no change by numbers of the slice it stands for."""
    for where, delta in deltas.items():
        if not delta.is_floating_point():
            raise ValueError(f"its change of {where.parameter[:200]!r} is of {delta.dtype}, not of float32")
        inside = where.stop is None or (where.dim < delta.ndim and delta.shape[where.dim] == where.stop - where.start)
        if not inside:
            raise ValueError(f"its change of {where.parameter[:200]!r} has a shape other than its slice")


def _digests(model: nn.Module, names) -> dict[str, str]:
    with model_lock(model):
        parameters = dict(model.named_parameters())
        return {name: digest(parameters[name]) for name in sorted(names)}


def fingerprint(model: nn.Module) -> str:
    """A hash of all weights: equal for equal models."""
    with model_lock(model):
        parts = [f"{name}={digest(tensor)}" for name, tensor in sorted(model.state_dict().items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def digest(tensor: Tensor) -> str:
    """sha256 of a tensor's bytes, shortened to 16 hex digits."""
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(data.data).hexdigest()[:16]
