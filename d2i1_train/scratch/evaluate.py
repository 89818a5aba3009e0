"""Score a base: how well it reconstructs and creates images."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2i1_data.checkpoints.bases import find_base
from d2i1_data.dataset.files import write_json
from d2i1_data.diff2in1 import HOSTS, Diff2in1Pipeline
from d2i1_data.diff2in1.families import CONFIDENCE
from d2i1_data.sources import open_source

from .generation import Generation
from .settings import BaseSettings
from .vae import reconstruct, save_grid

HELD_OUT = 500


def evaluate_base(settings: BaseSettings) -> dict[str, Any]:
    """Score the base `settings.evaluate` on held-out samples of the source.

    It writes quality.json and quality.png to the output folder.

    Returns:
        The content of quality.json.
    """
    pipe = _mount(str(settings.evaluate))
    source = open_source(settings.source, settings.resolution, captions=settings.captions)
    generation = Generation(source, HELD_OUT, pipe.stride, settings.seed)
    images = generation.images
    again = torch.cat([reconstruct(pipe.vae, p.to(pipe.device)).cpu() for p in images.split(50)])
    metrics, varied = generation.vary(pipe, "base")
    results: dict[str, Any] = {"held_out": len(images)}
    results |= {"psnr_db": round(psnr(again, images).mean().item(), 2), **metrics}
    rows = [images[:10], again[:10], varied[:10]]
    if generation.probe:
        for guidance in (1.0, 3.0):
            metrics, invented = generation.invent(pipe, guidance, "base")
            results |= metrics
            rows.append(invented[:10])
        results |= generation.real()
    folder = Path(settings.output_dir)
    save_grid(rows, folder / "quality.png")
    write_json(folder / "quality.json", results)
    print(json.dumps(results, indent=2))
    return results


def _mount(name: str) -> Diff2in1Pipeline:
    """A pipeline that creates images. Its host is not trained, and its labels are not used."""
    task = {"unused": CONFIDENCE.config()}
    pipe = Diff2in1Pipeline.from_base(find_base(name), next(iter(HOSTS)), task, width=16)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Compute decibels of each pair of images `[B, 3, H, W]` in [-1, 1], as `[B]`."""
    return -10 * ((one - other) / 2).square().mean((1, 2, 3)).log10()
