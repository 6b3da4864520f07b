"""What one process holds of a pretraining, with parameters whole (DDP) and sharded (FSDP2), on CPUs.

    torchrun --standalone --nproc-per-node 2 benchmarks/sharding_memory.py [--sharding full] [--model TIMM_SWIN]

It takes three steps of the recipe `gfm` on random weights and images. "Held" counts the bytes of the trained parameters
and of AdamW's moments between two steps; "peak" is the most that the whole process had in memory, everything included.
"""

from __future__ import annotations

import argparse
import os
import resource
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from gfm.models.backbone import build_backbone
from gfm.models.encoder import Encoder, EncoderCard
from gfm.models.masking import block_mask
from gfm.params import GfmPretraining
from gfm.pretraining.batch import Batch
from gfm.pretraining.optimiser import parameter_groups
from gfm.pretraining.recipes import Networks, Recipe, build_recipe
from gfm.pretraining.sharding import of_this_process, shard

STEPS = 3
BANDS = ["R", "G", "B"]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def main() -> None:
    """Train in this process, and print the first one's figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="swin_tiny_patch4_window7_224", help="student and teacher")
    parser.add_argument("--image-px", type=int, default=224)
    parser.add_argument("--images", type=int, default=1, help="a process and step")
    parser.add_argument("--sharding", choices=("none", "full"), default="none")
    args = parser.parse_args()
    dist.init_process_group("gloo")
    settings = GfmPretraining(recipe="gfm", teacher_px=args.image_px)
    student, teacher = (_encoder(args.model, args.image_px, seed) for seed in (0, 1))
    recipe = build_recipe(settings, Networks(student, teacher, 0, "memory"))
    model, processes = recipe.model, dist.get_world_size()
    if args.sharding == "full":
        shard(model, init_device_mesh("cpu", (processes,)), key="memory")
    elif processes > 1:
        recipe.model = DistributedDataParallel(model)
    optimiser = torch.optim.AdamW(parameter_groups(model, settings.weight_decay), lr=1e-4, fused=True)
    blocks = args.image_px // settings.masking.unit
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        images = torch.randint(256, (args.images, len(BANDS), args.image_px, args.image_px), generator=generator)
        masks = block_mask(args.images, blocks=blocks, ratio=settings.masking.ratio, generator=generator)
        numbers = torch.arange(args.images)
        _step(recipe, optimiser, Batch(images.to(torch.uint8), numbers, numbers < 0, masks, None))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    moments = [value for kept in optimiser.state.values() for value in kept.values() if value.ndim]
    if dist.get_rank() == 0:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts in KiB
        print(
            f"{args.model}, {processes} processes, sharding {args.sharding}: a process holds "
            f"{_megabytes(parameters):.1f} MB of parameters and {_megabytes(moments):.1f} MB of moments; "
            f"peak {peak:.0f} MB"
        )
    dist.barrier()
    dist.destroy_process_group()


def _encoder(name: str, px: int, seed: int) -> Encoder:
    backbone = build_backbone(name, {}, image_px=px, bands=len(BANDS), seed=seed)
    return Encoder(backbone, EncoderCard(name, {}, px, BANDS, MEAN, STD, "live", "random", licence=""), "memory")


def _step(recipe: Recipe, optimiser: torch.optim.Optimizer, batch: Batch) -> None:
    recipe.losses(batch)[0].backward()
    optimiser.step()
    optimiser.zero_grad()


def _megabytes(tensors: Iterable[Tensor]) -> float:
    return sum(of_this_process(tensor).nbytes for tensor in tensors) / 1e6


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
