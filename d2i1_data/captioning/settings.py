"""Settings of `d2i1 caption`."""

import math
from dataclasses import dataclass
from typing import Literal

from ..checks import (
    LARGEST,
    refuse_without,
    require_between,
    require_choices,
    require_positive,
)
from ..creation.settings import SourceSettings
from ..errors import InputError

OF_MODEL = ("revision", "prompt", "num_beams", "min_new_tokens")  # only a captioner reads them
OF_TEXT = ("max_new_tokens", "batch_size", "precision")  # every model reads them


@dataclass(kw_only=True)
class AnswerSettings:
    """Answers of the models"""

    prompt: str = ""
    """The model continues this text, such as "a photo of". The caption is what follows it."""
    num_beams: int = 5
    """Number of beams of the search (LAVIS: 5). It cannot be used with sample."""
    max_new_tokens: int = 30
    """Largest number of tokens of a caption (LAVIS: 30)."""
    min_new_tokens: int = 1
    """Least number of tokens of a caption (LAVIS: 1)."""
    sample: bool = False
    """Draw captions at random. What an image gets depends on its id and `seed` only."""
    temperature: float = 1.0
    """Draws are more varied above 1, and less below. Also for prompt_model."""
    top_p: float = 0.9
    """Draw from the likeliest tokens that together have this probability (LAVIS: 0.9). Also for
    prompt_model."""
    seed: int = 0
    """Decides all random draws."""
    batch_size: int = 8
    """Images in one batch. It changes speed and memory, but not the captions."""
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    """Precision of the weights. None takes float32 on a CPU; on a GPU bfloat16, or float16 if it
    has no bfloat16. BLIP-2 with Flan-T5 needs bfloat16 or float32."""

    def check(self) -> None:
        """Refuse impossible values."""
        require_positive(self, "num_beams", "max_new_tokens", "batch_size")
        require_between(self, 0, self.max_new_tokens, "min_new_tokens")
        require_between(self, 1, LARGEST, "num_beams", "max_new_tokens", "batch_size")
        if not 0 < self.top_p <= 1:
            raise InputError(f"--top_p {self.top_p}: expected more than 0, at most 1")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"--temperature {self.temperature}: expected more than 0")


@dataclass(kw_only=True)
class NewCaptionSettings:
    """New captions"""

    prompts_from_captions: int | None = None
    """Also write this many new captions to prompts.txt, for --source text:prompts.txt of `d2i1
    create`. They are made of phrases of the captions at hand, or by prompt_model."""
    prompt_model: str | None = None
    """A text-generation model of transformers that writes the new captions: folder or Hub id. It
    continues a list of captions at hand. None recombines phrases."""
    prompt_revision: str | None = None
    """Branch, tag or commit of prompt_model on the Hub."""


@dataclass(kw_only=True)
class CaptionSettings(AnswerSettings, NewCaptionSettings, SourceSettings):
    """Write captions of images with BLIP-2 or BLIP, and new captions from captions."""

    source: str
    """The images: {sources}."""
    output_dir: str
    """Folder for captions.jsonl, which every act takes as --captions, and prompts.txt."""
    model: str | None = None
    """BLIP-2 or BLIP in transformers layout: folder or Hub id, such as Salesforce/blip2-opt-2.7b.
    None takes the captions that the source has, or those of --captions."""
    revision: str | None = None
    """Branch, tag or commit of the model on the Hub."""
    overwrite: bool = False
    """Replace the captions of another command in output_dir."""

    def __post_init__(self) -> None:
        require_positive(self, "max_source_samples", "max_pixels", "prompts_from_captions")
        require_choices(self)
        AnswerSettings.check(self)
        if self.model is None:
            refuse_without(self, OF_MODEL, "--model")
            refuse_without(self, ["sample"], "--model")
        elif self.captions is not None:
            raise InputError("--captions has no effect with --model, which writes captions anew")
        if self.model is None and self.prompt_model is None:
            refuse_without(self, OF_TEXT, "--model or --prompt_model")
        if self.prompt_model is None:
            refuse_without(self, ["prompt_revision"], "--prompt_model")
        if self.prompts_from_captions is None:
            refuse_without(self, ["prompt_model"], "--prompts_from_captions")
        if self.sample:
            refuse_without(self, ["num_beams"], "beams: --sample draws")
        elif self.prompt_model is None:
            refuse_without(self, ["temperature", "top_p"], "--sample or --prompt_model")
