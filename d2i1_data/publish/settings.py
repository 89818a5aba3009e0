"""Settings of `d2i1 publish`."""

from dataclasses import dataclass

from ..errors import InputError


@dataclass(kw_only=True)
class PublishSettings:
    """Publish a dataset, a pipeline, an adapter or a whole run on the Hub, with cards."""

    repo_id: str
    """user/name, or a name alone, which belongs to you. The model, the dataset and the Space share
    this name. An adapter beside a pipeline is called NAME-adapter."""
    pipeline: str | None = None
    """Folder of a pipeline to publish, or the Hub id of one that the other cards link to."""
    adapter: str | None = None
    """Folder of an adapter to publish: a LoRA and a perception model."""
    dataset: str | None = None
    """Folder of a dataset to publish."""
    run: str | None = None
    """Folder that holds pipeline/, adapter/, dataset/ or results.json, such as a demo's folder."""
    results: str | list[str] | None = None
    """Files that `d2i1 evaluate --output_file` wrote for the pipeline. The card shows them."""
    space: bool = False
    """Also publish a Space that shows the pipeline, see `d2i1 app`."""
    private: bool = False
    """Make new repositories private. An existing public repository is refused."""
    append: bool = False
    """Add samples to those that the dataset holds on the Hub. Nothing is deleted."""
    overwrite: bool = False
    """Replace other samples, or another kind of model, in the repository."""
    dry_run: bool = False
    """Print what would be sent, and send nothing."""

    def __post_init__(self) -> None:
        given = [self.pipeline, self.adapter, self.dataset, self.run]
        if not any(given):
            raise InputError("nothing to publish: give --pipeline, --adapter, --dataset or --run")
        if self.append and self.overwrite:
            raise InputError("--append and --overwrite exclude each other")
        if self.append and not (self.dataset or self.run):
            raise InputError("--append needs a --dataset")
        if self.space and not (self.pipeline or self.run):
            raise InputError("--space needs a --pipeline to show")
        if self.results and not (self.pipeline or self.adapter or self.run):
            raise InputError("--results has no effect without a --pipeline or --adapter")
