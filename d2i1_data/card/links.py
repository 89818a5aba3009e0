"""Names and addresses on the Hub for a card."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Links:
    """Repositories of the Hub that a card names.

    Attributes:
        name: the name for `load_dataset` or `from_pretrained`, None for the name of the folder.
        model: repository of the pipeline, `user/name`, None if there is none.
        adapter: repository of the adapter.
        dataset: repository of the dataset.
        space: repository of the Space.
        checkpoint: fingerprint of `model`. A dataset card says "made with" the model only if this
            is the fingerprint of all its rows.
    """

    name: str | None = None
    model: str | None = None
    adapter: str | None = None
    dataset: str | None = None
    space: str | None = None
    checkpoint: str | None = None
