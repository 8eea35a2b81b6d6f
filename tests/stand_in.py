"""A device that is none: tensors that say they are on cuda, refuse to be mixed with others, and are computed here.

``begin()`` once in a process of its own: it changes torch. What a machine without a GPU can show of code for one is
that every tensor is where it has to be; speed, memory and the last digits it cannot.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

CUDA = torch.device("cuda:0")
aten = torch.ops.aten
#: What may take tensors of both: a copy, and an index on the CPU.
COPIES = (aten._to_copy.default, aten.copy_.default)
INDEXED = (aten.index.Tensor, aten.index_put_.default)


class Far(torch.Tensor):
    """Wraps `near`, which has the numbers; torch's own code takes it for a tensor without any (meta)."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> Far:
        layout: Any = {"strides": near.stride(), "storage_offset": near.storage_offset(), "dtype": near.dtype}
        needs = near.requires_grad
        made = torch.Tensor._make_wrapper_subclass(cls, near.size(), device="meta", requires_grad=needs, **layout)
        made.near = near
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.near.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"Far({self.near})"

    @classmethod
    def __torch_dispatch__(cls, of: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(of, args, kwargs or {})


class Operations(TorchDispatchMode):
    def __torch_dispatch__(self, of: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(of, args, kwargs or {})


def inside(values: Any) -> Any:
    """What tensors have inside, wherever they are in arguments; torch's own ``tree_map`` takes three times as long."""
    if isinstance(values, Far):
        return values.near
    if isinstance(values, dict):
        return {name: inside(value) for name, value in values.items()}
    return type(values)(map(inside, values)) if type(values) in (list, tuple) else values


def tensors_of(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif type(values) in (list, tuple, dict):
        for value in values.values() if isinstance(values, dict) else values:
            yield from tensors_of(value)


def computed(of: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation of torch on what tensors have inside, if they are all of one device."""
    tensors = [*tensors_of((args, kwargs))]
    far = [tensor for tensor in tensors if isinstance(tensor, Far)]
    there, device = bool(far), kwargs.get("device")
    # As on a GPU, a number alone may come from the CPU; so may an index, but not what is put where it points.
    others = tensors_of((args[0], args[2:])) if of in INDEXED else tensors
    mixed = far and any(tensor.dim() and not isinstance(tensor, Far) for tensor in others)
    if mixed and of not in COPIES:
        found = [f"{'cuda' if isinstance(tensor, Far) else 'cpu'} {tuple(tensor.shape)}" for tensor in tensors]
        raise RuntimeError(f"{of}: expected all tensors to be on the same device, found {', '.join(found)}")
    if device is not None:
        there, kwargs = torch.device(device).type == "cuda", {**kwargs, "device": torch.device("cpu")}
    if of is aten.copy_.default:
        inside(args[0]).copy_(inside(args[1]))
        return args[0]
    of = aten.conj_physical.default if of is aten._conj.default else of  # not later
    known = {id(tensor.near): tensor for tensor in far}  # what works in place gives the tensor that it was given
    found = of(*inside(args), **inside(kwargs))

    def again(near: torch.Tensor) -> Far:
        return known[id(near)] if id(near) in known else Far(near)

    if there and isinstance(found, torch.Tensor):
        return again(found)
    return tree_map_only(torch.Tensor, again, found) if there else found


class Calls(TorchFunctionMode):
    """What torch does of a call before any operation, and would do with a device that is not there."""

    def __torch_function__(self, of: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = args if of is torch.device else tuple(map(numbered, args))
        kwargs = {name: numbered(value) for name, value in (kwargs or {}).items()}
        if of in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], Far):
            at = tuple(map(as_index, args[1])) if isinstance(args[1], tuple) else as_index(args[1])
            return of(args[0], at, *args[2:])
        if of is torch.nn.functional.scaled_dot_product_attention and isinstance(args[0], Far):
            assert all(isinstance(tensor, Far) for tensor in tensors_of((args, kwargs)))
            return Far(of(*inside(args), **inside(kwargs)))
        if of in (torch.tensor, torch.as_tensor) and kwargs.get("device") == CUDA:
            del kwargs["device"]
            return of(*args, **kwargs).to(CUDA)
        return of(*args, **kwargs)


def numbered(value: Any) -> Any:
    return CUDA if isinstance(value, str | torch.device) and str(value) == "cuda" else value


def as_index(value: Any) -> Any:
    return torch.as_tensor(np.asarray(value)) if isinstance(value, list | np.ndarray) else value


class Generator(torch.Generator):
    def __new__(cls, device: Any = "cpu") -> Any:
        return super().__new__(cls)


def begin() -> None:
    import torch._dynamo  # before there is another Generator

    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch.inference_mode, torch.Generator = torch.no_grad, Generator
    said = {"is_available": True, "device_count": 1, "get_device_name": "none", "current_device": 0}
    for name, value in said.items():
        setattr(torch.cuda, name, lambda *_, value=value: value)
    for name in ("_lazy_init", "synchronize", "empty_cache", "set_device"):
        setattr(torch.cuda, name, lambda *_: None)
    torch.cuda.max_memory_allocated = lambda *_: 0
    Operations().__enter__()
    Calls().__enter__()
