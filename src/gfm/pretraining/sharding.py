"""Parameters, gradients and optimiser state sharded over processes (FSDP2), with checkpoints as whole as ever."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.torch_version import TorchVersion
from torch.utils._pytree import tree_map

from gfm.errors import GfmError
from gfm.models.fast import SparseStudent
from gfm.models.sparse_swin import SparseSwin, run_block

OLDEST_TORCH = "2.15"  # the oldest tested; before some version FSDP does not look for tensors in our dataclasses
BLOCKS = "blocks"  # timm's name for the list of a network's or a stage's blocks, and UnitDecoder's


class ShardedStrategy(ModelParallelStrategy):  # type: ignore[misc]  # lightning is untyped here
    """Lightning's strategy for models that are sharded by hand, with the checkpoints that the other strategies write.

    A checkpoint holds whole tensors under the names and numbers of an ordinary training, so any number of processes
    reads it, sharded or not. The first process writes it; each process reads its own part of it.
    """

    def __init__(self, processes: int) -> None:
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether Lightning calls `load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The module's whole tensors in the first process."""
        return whole(self.lightning_module.state_dict(), keep=self.is_global_zero)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimiser's whole tensors in the first process."""
        return whole(optimizer.state_dict(), keep=self.is_global_zero)

    def load_checkpoint(self, checkpoint_path: Path, weights_only: bool | None = None) -> dict[str, Any]:
        """A checkpoint's content, mapped and not read: a process needs a part of it only."""
        found: dict[str, Any] = torch.load(checkpoint_path, "cpu", weights_only=weights_only, mmap=True)
        return found

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's shards of the parameters."""
        own, state = self.lightning_module.state_dict(), checkpoint["state_dict"]
        sharded = {name: _shard_as(own[name], tensor) if name in own else tensor for name, tensor in state.items()}
        self.lightning_module.load_state_dict(sharded, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's shards of what the optimiser keeps of each parameter."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {
                number: {
                    # The moments have their parameter's shape, the step has none.
                    name: _shard_as(parameters[number], value) if value.ndim else value
                    for name, value in kept.items()
                }
                for number, kept in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})


def shard(model: nn.Module, mesh: DeviceMesh, *, key: str) -> None:
    """Shard the trained parameters of a recipe's model over the processes of `mesh`, in place.

    Every block is whole in a process only while it computes; what is in no block (embedding, merging, norms, decoder
    layer, projector) is one more unit. A frozen teacher stays whole: it has no gradients and no optimiser state, and
    cached features save its computation too. GfmError names `KEY.sharding` for a network with live batch norm, or an
    older torch.
    """
    if TorchVersion(torch.__version__) < OLDEST_TORCH:
        raise GfmError(
            f"{key}.sharding = full: it needs torch {OLDEST_TORCH} or newer, this is {torch.__version__}; "
            "update torch, or set it to none"
        )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training for module in model.modules()):
        raise GfmError(
            f"{key}.sharding = full: the student has batch norm, whose statistics would differ between processes; "
            "set it to none"
        )
    for parameter in trained:
        parameter.data = parameter.data.contiguous()  # networks are built channels-last, which FSDP does not take
    blocks = [
        block
        for name, group in model.named_modules()
        if name.rpartition(".")[2] == BLOCKS and any(parameter.requires_grad for parameter in group.parameters())
        for block in group.children()
    ]
    # Not left to FSDP's default, by which the outermost unit stays whole after a validation.
    for module in [*reversed(blocks), model]:  # the inner ones first
        frozen = {parameter for parameter in module.parameters() if not parameter.requires_grad}
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=frozen)
    # A block of timm's returns a view; nothing adds to it in place, which is what FSDP warns of.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for module in model.modules():
        if isinstance(module, SparseStudent):
            _fetch_visible_blocks(module.sparse)


def whole(state: Mapping[str, Any], *, keep: bool) -> dict[str, Any]:
    """A state dict with whole tensors on the CPU where it has sharded ones; None stands for them unless `keep`.

    Every process must call it.
    """

    def gathered(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        tensor = value.full_tensor()
        return tensor.cpu() if keep else None

    found: dict[str, Any] = tree_map(gathered, dict(state))
    return found


def of_this_process(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _shard_as(own: Tensor, tensor: Tensor) -> Tensor:
    """This process's shard of a whole tensor, sharded as `own`."""
    if not isinstance(own, DTensor):
        return tensor
    part = distribute_tensor(tensor, own.device_mesh, own.placements, src_data_rank=None)
    return part.clone()  # a part alone would keep the whole tensor in memory


def _fetch_visible_blocks(sparse: SparseSwin) -> None:
    """Have FSDP fetch a block's parameters where SparseSwin runs it: not by the block's own forward."""
    for stage in sparse.backbone.layers:
        for block in stage.blocks:
            block.run_visible = MethodType(run_block, block)
            register_fsdp_forward_method(block, "run_visible")
    sparse.run_block = lambda block, x, attention: block.run_visible(x, attention)
