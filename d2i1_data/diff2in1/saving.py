"""Save and push pipelines, with the code that opens them elsewhere."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import diffusers
from diffusers import DiffusionPipeline
from diffusers.utils import convert_unet_state_dict_to_peft, logging
from huggingface_hub import create_repo, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from .checkpoint import check_keys
from .join import join_modules

FORMAT_VERSION = 1  # format of the folder of a pipeline or adapter, in its model_index.json
INDEX, CODE = "model_index.json", "pipeline.py"
TRAINING = "training.json"  # how the pipeline was trained
HASHES = "hashes.json"  # file -> sha256, for every file that `save_pretrained` writes
LORA_FILE = "pytorch_lora_weights.safetensors"
TOP_FILES = (INDEX, CODE, LORA_FILE)
LORA_NAME = "diff2in1"  # name of the trained LoRA; users may load other LoRAs beside it
DEFAULTS = {  # of a pipeline: above the first number, up to the second; of this type
    "default_strength": (0, 1, float),
    "default_num_inference_steps": (0, 1000, int),
    "default_guidance_scale": (0, 1000, float),
    "default_processing_resolution": (-1, 8192, int),
}
CardWriter = Callable[[Path, str], None]  # writes README.md; arguments are folder and repository


def check_index(index: Mapping[str, Any], place: str) -> None:
    """Check that this version can open a pipeline or an adapter.

    Args:
        index: the content of `model_index.json`.
        place: names the pipeline or adapter in the message.

    Raises:
        ValueError: if its format is newer, or a default is no number or out of range.
    """
    version = index.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ValueError(
            f"{place}: format version {version!r}, this version of diff2in1 opens up to"
            f" {FORMAT_VERSION}: update the package"
        )
    for name, (low, high, kind) in DEFAULTS.items():
        value = index.get(name)
        is_number = isinstance(value, int | kind) and not isinstance(value, bool)
        if value is not None and not (is_number and low < value <= high):
            raise ValueError(
                f"{place}: {name} {value!r}: expected a number above {low}, at most {high}"
            )


def check_no_lora(pipe: DiffusionPipeline) -> None:
    """Check that no LoRA is loaded in a pipeline.

    A part that is saved with its LoRA would load with random weights.

    Raises:
        ValueError: if there is a LoRA.
    """
    for name in ("unet", "base_unet", "text_encoder"):
        if getattr(getattr(pipe, name), "peft_config", None):
            raise ValueError(
                f"{name} has a LoRA adapter: call fuse_lora() and unload_lora_weights() first"
            )


def load_lora(pipe: DiffusionPipeline, adapter: str) -> None:
    """Load the LoRA of an adapter repository into the U-Net of a pipeline.

    Raises:
        ValueError: if the U-Net lacks weights of the LoRA, or the LoRA lacks weights.
    """
    stored, alphas, metadata = pipe.lora_state_dict(
        adapter, weight_name=LORA_FILE, use_safetensors=True, return_lora_metadata=True
    )
    # `load_lora_weights` would also warn that there is none for the text encoder
    options = {"adapter_name": LORA_NAME, "metadata": metadata, "low_cpu_mem_usage": True}
    pipe.load_lora_into_unet(stored, alphas, pipe.unet, _pipeline=pipe, **options)
    names = {key.removeprefix("unet.") for key in convert_unet_state_dict_to_peft(stored)}
    mark = f".{LORA_NAME}."
    loaded = {key.replace(mark, ".") for key in pipe.unet.state_dict() if mark in key}
    check_keys("the LoRA", loaded - names, names - loaded)


def keep_facts(pipe: DiffusionPipeline, folder: Path) -> None:
    """Copy the training record of the pipeline that was loaded: its card shows licence and results.

    Args:
        pipe: the pipeline. A new one has no record.
        folder: gets the record.
    """
    loaded = Path(getattr(pipe.perception.config, "_name_or_path", "")).parent
    file, repository = loaded / TRAINING, str(pipe.config.get("_name_or_path"))
    if not file.is_file() and loaded.parent.name == "snapshots":  # diffusers did not fetch it
        try:
            file = Path(hf_hub_download(repository, TRAINING, revision=loaded.name))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
            return
    if file.is_file() and file.resolve() != (folder / TRAINING).resolve():
        shutil.copyfile(file, folder / TRAINING)


def write_code(pipe: DiffusionPipeline, folder: Path) -> None:
    """Write the code of a saved pipeline, its training record, and an index of its classes."""
    (folder / CODE).write_text(join_modules(type(pipe).__module__))
    keep_facts(pipe, folder)
    write_index(folder, perception=["diff2in1", type(pipe.perception).__name__])


def write_index(folder: Path, **entries: Any) -> None:
    """Add entries to model_index.json, and remove paths of this machine from it and all configs.

    Then write the hashes of all these files.

    Args:
        folder: folder of the saved pipeline.
        entries: the new entries.
    """
    file = folder / INDEX
    new = {"_class_name": "Diff2in1Pipeline", "_diffusers_version": diffusers.__version__}
    index = json.loads(file.read_text()) if file.is_file() else new
    entries["_class_name"] = "Diff2in1Pipeline"
    file.write_text(json.dumps(index | entries))
    for config in (file, *folder.glob("*/config.json")):
        content = json.loads(config.read_text())
        content.pop("_name_or_path", None)
        config.write_text(json.dumps(content, indent=2) + "\n")
    (folder / HASHES).write_text(json.dumps(dict(_hashes(folder)), indent=2) + "\n")


def _hashes(folder: Path) -> Iterator[tuple[str, str]]:
    """The files of a saved pipeline or adapter with their sha256."""
    parts = {name for name, entry in json.loads((folder / INDEX).read_text()).items() if entry}
    for file in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and (name in TOP_FILES or file.parent.name in parts):
            yield name, hash_file(file)


def hash_file(file: Path) -> str:
    """The sha256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def push_folder(
    pipe: DiffusionPipeline,
    folder: Path,
    repo_id: str,
    private: bool | None,
    token: str | None,
    commit_message: str | None,
    create_pr: bool,
) -> str:
    """Push a saved pipeline with a card.

    Args:
        pipe: the pipeline. If its class has a `card_writer`, it writes the card.
        folder: folder of the saved pipeline.
        repo_id: repository on the Hub; it is created if it does not exist.
        private: whether a new repository is private.
        token: token of the Hub.
        commit_message: message of the commit.
        create_pr: whether to open a pull request.

    Returns:
        The URL of the commit.
    """
    name = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
    write_card: CardWriter | None = type(pipe).card_writer
    if write_card is None:
        logging.get_logger(__name__).warning(
            "No card is pushed: this pipeline was not imported by `from d2i1_data import"
            " Diff2in1Pipeline`."
        )
    else:
        write_card(folder, name)
    return str(pipe._upload_folder(folder, name, token, commit_message, create_pr))


class SavedWithCode:
    """The part of a pipeline that saves and pushes it with its code, and refuses adapters.

    It is no `DiffusionPipeline` itself, because diffusers looks for the only one in a file of code.
    """

    card_writer: ClassVar[CardWriter | None] = None
    """Writes the card that is pushed. `from d2i1_data import Diff2in1Pipeline` sets it."""

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **given: Any) -> Any:
        """The settings and components in an index; `from_pretrained` of any class calls this.

        Raises:
            ValueError: if it is the index of an adapter.
        """
        if "perception" in config_dict and "unet" not in config_dict:
            raise ValueError(
                "this is an adapter (a LoRA and a perception model), not a whole pipeline: open it"
                " with Diff2in1Pipeline.from_adapter(...), which also loads the base"
                f" {config_dict.get('base')!r}"
            )
        return super().extract_init_dict(config_dict, **given)  # type: ignore[misc]

    def save_pretrained(
        self,
        save_directory: str | Path,
        *options: Any,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
        **more: Any,
    ) -> None:
        """Write the pipeline. The code of pipeline and host is written as one file each.

        The folder loads with this package, or without it with `custom_pipeline` and
        `trust_remote_code=True`. An adapter must be fused first.

        Args:
            save_directory: the folder to write.
            options: `safe_serialization` and `variant`, as in diffusers.
            push_to_hub: push the complete folder with a card. Unlike this method, `d2i1 publish`
                tries again after errors of the network.
            repo_id: repository to push to; None takes the name of the folder.
            private: whether a new repository is private. This and token, commit_message and
                create_pr are as in diffusers.
            more: further options of diffusers.

        Raises:
            ValueError: if an adapter is not fused.
        """
        check_no_lora(self)
        super().save_pretrained(save_directory, *options, **more)  # type: ignore[misc]
        folder = Path(save_directory)
        write_code(self, folder)
        if push_to_hub:
            name = repo_id or folder.name
            push_folder(self, folder, name, private, token, commit_message, create_pr)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        subfolder: str | None = None,
    ) -> str:
        """Push the files of `save_pretrained` with a card, and return the URL of the commit.

        Diffusers' own method would push an empty card and no code.
        """
        if subfolder:
            raise ValueError(f"subfolder {subfolder!r}: a pipeline loads from the top only")
        with TemporaryDirectory() as temporary:
            self.save_pretrained(temporary, safe_serialization, variant)
            folder = Path(temporary)
            return push_folder(self, folder, repo_id, private, token, commit_message, create_pr)
