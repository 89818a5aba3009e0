"""What can be set when something is published."""

from dataclasses import dataclass

from ..errors import InputError


@dataclass(kw_only=True)
class PublishSettings:
    """Put a dataset, a pipeline, an adapter, or all that a run left, on the Hub, with cards."""

    repo_id: str
    """user/name, or a name alone, which is yours: the model's, the dataset's and the Space's; an
    adapter beside a pipeline is NAME-adapter."""
    pipeline: str | None = None
    """Folder of a pipeline to publish; or the Hub id of one, which the others' cards link to."""
    adapter: str | None = None
    """Folder of an adapter to publish: a LoRA and a perception model."""
    dataset: str | None = None
    """Folder of a dataset to publish."""
    run: str | None = None
    """Folder with any of pipeline/, adapter/, dataset/ and results.json, such as a demo's."""
    results: str | list[str] | None = None
    """What `d2i1 evaluate --output_file` wrote of the pipeline, a file or several: its figures."""
    space: bool = False
    """Also a Space that shows the pipeline, see `d2i1 app`."""
    private: bool = False
    """Make new repositories private; public ones that are there are refused."""
    append: bool = False
    """Add to the samples that the dataset holds on the Hub; nothing is deleted."""
    overwrite: bool = False
    """Replace other samples, or another kind of model, that lie there."""
    dry_run: bool = False
    """Say what would be sent, and send nothing."""

    def __post_init__(self) -> None:
        given = [self.pipeline, self.adapter, self.dataset, self.run]
        if not any(given):
            raise InputError("publish: nothing named: --pipeline, --adapter, --dataset or --run")
        if self.append and self.overwrite:
            raise InputError("--append and --overwrite exclude each other")
        if self.append and not (self.dataset or self.run):
            raise InputError("--append is for a --dataset")
        if self.space and not (self.pipeline or self.run):
            raise InputError("--space needs a --pipeline to show")
        if self.results and not (self.pipeline or self.adapter or self.run):
            raise InputError("--results says nothing without a --pipeline or --adapter")
