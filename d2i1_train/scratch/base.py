"""Train a small base: first the autoencoder, then text encoder and U-Net on its latents."""

import hashlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from d2i1_data.card.command import changed_flags
from d2i1_data.dataset.files import as_os_error, explain_full_disk
from d2i1_data.dataset.record import RunRecord, claimed_run, read_run, write_run
from d2i1_data.dataset.sample import Sample
from d2i1_data.diff2in1.images import pad_to_stride
from d2i1_data.errors import InputError
from d2i1_data.sources import open_source, random_subset
from d2i1_data.sources.source import fingerprint

from ..loop.manifest import refuse_differences
from .denoiser import fit_unet
from .evaluate import evaluate_base
from .fit import STATE
from .parts import assemble, build_text_encoder, build_unet, build_vae, train_tokenizer
from .settings import BaseSettings
from .vae import encode_all, fit_vae

# settings that do not change the trained weights
FREE = {"output_dir", "evaluate", "checkpointing_steps", "resume_from_checkpoint"}
FREE |= {"dataloader_num_workers"}
FREE |= {"source", "captions"}  # the hash of the samples stands for them


def base(settings: BaseSettings) -> None:
    """Train a base, or score the base that `evaluate` names."""
    if settings.evaluate is None:
        train_base(settings)
    else:
        evaluate_base(settings)


def train_base(settings: BaseSettings) -> Path:
    """Train a base and write it in diffusers layout.

    Returns:
        The folder of the base, `output_dir/pipeline`.

    Raises:
        InputError: if a sample has no caption, or images differ in size.
    """
    folder = Path(settings.output_dir)
    torch.manual_seed(settings.seed)
    images, captions = gather(settings)
    given = asdict(settings)
    samples = hashlib.sha256(images.numpy().data).hexdigest() + fingerprint(captions)
    record = RunRecord("base", changed_flags(given, type(settings)), given, samples=samples)
    resume = settings.resume_from_checkpoint
    with explain_full_disk(folder), as_os_error(), claimed_run(folder, record, resume) as begins:
        if not begins:
            _check_resumed(folder, record)
            write_run(folder, record)
        return _train(settings, images, captions, folder)


def _check_resumed(folder: Path, record: RunRecord) -> None:
    """Check that a run continues as it began, if anything was trained."""
    earlier = read_run(folder)
    if earlier is None or not any((folder / part / STATE).exists() for part in ("vae", "unet")):
        return
    recorded, now = (
        {name: value for name, value in one.settings.items() if name not in FREE}
        | ({"samples": one.samples} if one.samples else {})
        for one in (earlier, record)
    )
    refuse_differences(str(folder), recorded, now)


def _train(settings: BaseSettings, images: Tensor, captions: list[str], folder: Path) -> Path:
    """Train the parts of a base one after another, and save it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = train_tokenizer(captions, settings, folder / "tokenizer")
    vae = build_vae(settings, (images.shape[2], images.shape[3])).to(device)
    fit_vae(vae, images, settings, folder)
    latents = encode_all(vae, images, settings)
    text_encoder = build_text_encoder(tokenizer, settings).to(device)
    unet = build_unet(settings, (latents.shape[2], latents.shape[3])).to(device)
    base = assemble(vae, text_encoder, tokenizer, unet)
    fit_unet(base, latents, captions, settings, folder)
    base.to("cpu", torch.float16).save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def gather(settings: BaseSettings) -> tuple[Tensor, list[str]]:
    """Read all images and captions of the source.

    Returns:
        Images `[N, 3, H, W]` uint8, with sides padded to the stride, and N captions.

    Raises:
        InputError: if a sample has no caption, or images differ in size.
    """
    source = open_source(settings.source, settings.resolution, captions=settings.captions)
    chosen = random_subset(len(source), settings.max_train_samples, settings.subset_seed)
    loader: DataLoader[Sample] = DataLoader(
        source,  # type: ignore[arg-type]  # a Source has the same methods as a Dataset
        batch_size=None,
        sampler=chosen,
        num_workers=settings.dataloader_num_workers,
    )
    levels = len(settings.vae_channels) + len(settings.unet_channels) - 2
    stride = max(8, 2**levels)  # diffusers' pipelines create multiples of 8 only
    images, captions = [], []
    for sample in tqdm(loader, "images", total=len(chosen)):
        if sample.caption is None:
            raise InputError(
                f"{settings.source}: sample {sample.id} has no caption; a base needs captions"
            )
        pixels = torch.from_numpy(np.array(sample.image)).permute(2, 0, 1)
        height, width = sample.size
        images.append(pad_to_stride(pixels[None].float(), stride)[0].byte())
        captions.append(sample.caption)
        if images[-1].shape != images[0].shape:
            raise InputError(
                f"{settings.source}: {sample.id} is {width}x{height}, others have another size;"
                " a base is trained on images of one size"
            )
    return torch.stack(images), captions
