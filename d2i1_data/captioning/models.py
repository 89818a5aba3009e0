"""Models of transformers that write text: captioners of images, and text generators."""

import resource
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    BlipForConditionalGeneration,
)

from ..checkpoints.files import PLAIN, fetch, fingerprint, loading
from ..checks import LARGEST
from ..errors import InputError
from .sampling import seeded_sampling
from .settings import AnswerSettings

CAPTIONERS = {"blip-2": Blip2ForConditionalGeneration, "blip": BlipForConditionalGeneration}
HALF_OVERFLOWS = ("t5",)  # text models whose activations exceed float16


class TextModel:
    """A model of transformers, not loaded yet.

    Args:
        name: folder or Hub id.
        revision: branch, tag or commit on the Hub.
        settings: settings of the answers.

    Raises:
        InputError: if there is no such model, or it cannot be used with these settings.
    """

    kind = "model"

    def __init__(self, name: str, revision: str | None, settings: AnswerSettings) -> None:
        self.name, self.settings = name, settings
        self.folder = fetch(name, self.kind, PLAIN, revision)
        if not any(self.folder.glob("*.safetensors")):
            files = ", ".join(sorted(f.name for f in self.folder.iterdir() if f.is_file()))
            raise InputError(
                f"{self.kind} {name}: has no .safetensors, only {files or 'nothing'}; other files"
                " of weights can run code"
            )
        with loading(f"{self.kind} {name}"):
            self.config = AutoConfig.from_pretrained(self.folder)
        self.device = PartialState().device
        self.dtype = self._choose_dtype()

    def _choose_dtype(self) -> torch.dtype:
        text = getattr(self.config, "text_config", self.config)
        overflows = text.model_type in HALF_OVERFLOWS
        if self.settings.precision == "float16" and overflows:
            raise InputError(
                f"--precision float16: {self.kind} {self.name} has a {text.model_type}, which"
                " overflows; expected bfloat16 or float32"
            )
        if self.settings.precision is not None:
            return getattr(torch, self.settings.precision)
        if self.device.type != "cuda":
            return torch.float32
        if torch.cuda.is_bf16_supported():
            return torch.bfloat16
        return torch.float32 if overflows else torch.float16

    @property
    def facts(self) -> dict[str, str]:
        """What decides its answers, besides the settings and what it is asked."""
        return {"model": fingerprint(self.folder), "precision": str(self.dtype)}

    def memory(self) -> str:
        """The memory that was used at most so far, and the precision, in a few words."""
        if self.device.type == "cuda":
            used, where = torch.cuda.max_memory_allocated(self.device), "GPU"
        else:
            used, where = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "CPU"
        precision = str(self.dtype).removeprefix("torch.")
        return f"{used / 1e9:.2f} GB of {where} memory in {precision}"

    def _place(self, model: Any) -> Any:
        return model.to(self.device).eval()

    def _room(self) -> int:
        """The number of tokens that can stand before an answer.

        Raises:
            InputError: if answers are longer than the model allows.
        """
        text = getattr(self.config, "text_config", self.config)
        places = getattr(text, "max_position_embeddings", None) or LARGEST
        if places <= self.settings.max_new_tokens:
            raise InputError(
                f"--max_new_tokens {self.settings.max_new_tokens}: {self.kind} {self.name} reads"
                f" {places} tokens; expected fewer"
            )
        return places - self.settings.max_new_tokens

    def _search(self, names: Sequence[str], draws: bool) -> dict[str, Any]:
        """Arguments of `generate`.

        Args:
            names: a name for each row of the batch, for its draws.
            draws: whether to draw; otherwise the beams of the settings search.
        """
        own = self.settings
        shared = {
            "do_sample": False,  # see `SeededDraw`
            "max_new_tokens": own.max_new_tokens,
            "length_penalty": 1.0,
            "repetition_penalty": 1.0,
        }
        if not draws:
            return {**shared, "num_beams": own.num_beams}
        processors = seeded_sampling(names, own.seed, own.temperature, own.top_p)
        return {**shared, "num_beams": 1, "logits_processor": processors}


class Captioner(TextModel):
    """BLIP-2 or BLIP. Its defaults are those of LAVIS.

    Source: Li et al. 2023, "BLIP-2"; Li et al. 2022, "BLIP"; github.com/salesforce/LAVIS,
    `Blip2OPT.generate`.
    """

    def __init__(self, name: str, revision: str | None, settings: AnswerSettings) -> None:
        super().__init__(name, revision, settings)
        if self.config.model_type not in CAPTIONERS:
            raise InputError(
                f"model {name}: is a {self.config.model_type}, expected one of"
                f" {', '.join(CAPTIONERS)}"
            )

    def load(self) -> None:
        """Load weights and processor.

        Raises:
            InputError: if they cannot be read.
        """
        with loading(f"model {self.name}"):
            self.processor: Any = AutoProcessor.from_pretrained(self.folder)
            kind = CAPTIONERS[self.config.model_type]
            model = kind.from_pretrained(self.folder, dtype=self.dtype, use_safetensors=True)
            if self.config.model_type == "blip-2":
                self._complete(model)
            self.model = self._place(model)
        tokenizer = self.processor.tokenizer
        said = tokenizer(self.settings.prompt).input_ids
        self.said = tokenizer.decode(said, skip_special_tokens=True).strip()
        if len(said) + getattr(self.config, "num_query_tokens", 0) > self._room():
            raise InputError(
                f"--prompt: has {len(said)} tokens, too many for model {self.name} with"
                f" --max_new_tokens {self.settings.max_new_tokens}"
            )

    def _complete(self, model: Any) -> None:
        """Fill in what early checkpoints of BLIP-2 do not state: the token of an image."""
        self.processor.num_query_tokens = model.config.num_query_tokens
        tokenizer = self.processor.tokenizer
        token = tokenizer.convert_tokens_to_ids(str(self.processor.image_token))
        model.config.image_token_index = token
        if token >= (size := model.get_input_embeddings().num_embeddings):
            raise InputError(
                f"model {self.name}: its tokenizer has the image as token {token}, its text model"
                f" has {size} tokens; expected a checkpoint whose parts fit"
            )

    @torch.inference_mode()
    def answer(self, names: Sequence[str], images: Sequence[NDArray[np.uint8]]) -> list[str]:
        """Caption a batch of images.

        Args:
            names: ids of the images, for their draws.
            images: `[H, W, 3]` each.
        """
        own, text = self.settings, None
        if own.prompt or self.config.model_type == "blip-2":
            text = [own.prompt] * len(images)
        pictures = [Image.fromarray(image) for image in images]
        inputs = self.processor(images=pictures, text=text, return_tensors="pt")
        pixels = inputs.pop("pixel_values").to(self.device, self.dtype)
        words = {name: one.to(self.device) for name, one in inputs.items()}
        search = self._search(names, own.sample) | {"min_new_tokens": own.min_new_tokens}
        ids = self.model.generate(pixel_values=pixels, **words, **search)
        answers = self.processor.batch_decode(ids, skip_special_tokens=True)
        return [self._without_prompt(answer) for answer in answers]

    def _without_prompt(self, answer: str) -> str:
        """The caption in an answer: what follows the prompt, up to the end of the line."""
        answer = answer.strip()
        if answer.lower().startswith(self.said.lower()):
            answer = answer[len(self.said) :]
        return first_line(answer)


class Writer(TextModel):
    """A text generator that continues a list of captions."""

    kind = "prompt_model"

    def load(self) -> None:
        """Load weights and tokenizer.

        Raises:
            InputError: if they cannot be read.
        """
        with loading(f"{self.kind} {self.name}"):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(
                self.folder, padding_side="left", truncation_side="left"
            )
            if self.tokenizer.pad_token is None:
                self.tokenizer.pad_token = self.tokenizer.eos_token
            model = AutoModelForCausalLM.from_pretrained(
                self.folder, dtype=self.dtype, use_safetensors=True
            )
            self.model = self._place(model)

    @torch.inference_mode()
    def answer(self, names: Sequence[str], lists: Sequence[Sequence[str]]) -> list[str]:
        """Continue lists of captions by one caption each.

        Args:
            names: a name for each list, for its draws.
            lists: the captions before the new one.
        """
        texts = ["".join(f"{caption}\n" for caption in captions) for captions in lists]
        form = {"return_tensors": "pt", "padding": True, "truncation": True}
        inputs = self.tokenizer(texts, **form, max_length=self._room()).to(self.device)
        size = inputs["input_ids"].shape[1]
        words = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        padding = self.tokenizer.pad_token_id
        search = self._search(names, draws=True)
        ids = self.model.generate(**words, **search, pad_token_id=padding)
        return [
            first_line(answer)
            for answer in self.tokenizer.batch_decode(ids[:, size:], skip_special_tokens=True)
        ]


def first_line(text: str) -> str:
    """The first line of a text that is not empty, with single spaces."""
    lines = text.strip().splitlines()
    return " ".join(lines[0].split()) if lines else ""
