"""What a base is worth: reconstruction, sharpness, obedience to captions, distance to real images."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from d2i1_data.diff2in1.ddim import ddim_step, timesteps
from d2i1_data.loading import find_base
from d2i1_data.sources import open_source

from ..batches import seeded
from ..settings import BaseSettings
from .vae import reconstruct, save_grid, to_unit

HELD_OUT, PROBE_SAMPLES, PROBE_STEPS, CALLS, GUIDANCE = 500, 6000, 1500, 25, 3.0
