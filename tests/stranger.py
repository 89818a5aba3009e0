"""Use published repositories without our package; run as a script in a process of its own.

Arguments: image.npy, out.npz, the id of a dataset, its image columns with commas between them, then
the ids of pipelines. Writes to out.npz what each pipeline predicts and creates, and the ids and
pixels of the rows, loaded and streamed.
"""

import sys
from pathlib import Path


class Hidden:
    """Makes our packages impossible to import, even where they are installed."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in ("d2i1_data", "d2i1_train", "diff2in1", "hub_cards"):
            raise ModuleNotFoundError(f"{name} is not installed here")


sys.meta_path.insert(0, Hidden)  # type: ignore[arg-type]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from datasets import load_dataset  # noqa: E402
from diffusers import DiffusionPipeline  # noqa: E402
from huggingface_hub import hf_hub_download  # noqa: E402


def main() -> None:
    image_file, out, dataset, pictures, *pipelines = sys.argv[1:]
    image, found = np.load(image_file), {}
    for name in pipelines:
        pipe = DiffusionPipeline.from_pretrained(name, custom_pipeline=name, trust_remote_code=True)
        pipe.set_progress_bar_config(disable=True)
        for task, maps in pipe.predict(image).predictions.items():
            found[f"{name} {task}"] = maps[0]
        generator = torch.Generator().manual_seed(0)
        created = pipe(image, "a room", num_inference_steps=2, generator=generator)
        found[f"{name} created"] = np.asarray(created.images[0])
    for way in ("plain", "streamed"):
        rows = list(load_dataset(dataset, split="train", streaming=way == "streamed"))
        found[f"{way} id"] = np.array([row["id"] for row in rows])
        for column in pictures.split(","):
            found[f"{way} {column}"] = np.stack([np.asarray(row[column]) for row in rows])
    columns = ["id", "caption"]
    some = load_dataset(dataset, split="train", streaming=True, columns=columns)
    assert [list(row) for row in some] == [columns] * len(rows)
    assert not [name for name in sys.modules if name.startswith("d2i1_")]
    np.savez(out, **found)
    run_snippets(pipelines[0], "model")
    run_snippets(dataset, "dataset")


def run_snippets(name: str, kind: str) -> None:
    """Run the last snippet of a card, as people copy it: the one that needs no package of ours."""
    card = Path(hf_hub_download(name, "README.md", repo_type=kind)).read_text()
    exec(card.split("```python\n")[-1].split("\n```")[0], {})


if __name__ == "__main__":
    main()
