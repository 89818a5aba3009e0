"""A Space that shows a pipeline, see `d2i1 app`."""

from ..hub import Changes, Content, Held
from .parcel import CARD, Parcel
from .space_files import space_files

PACKAGES = ("d2i1_data/", "hub_cards/")  # whose old files go


class Space(Parcel):
    """The app with the code it needs, and a card that names the pipeline."""

    kind, sign = "space", "d2i1_data/publish/space_files.py"

    def __init__(self, repo_id: str, pipeline: str, overwrite: bool) -> None:
        super().__init__(repo_id, overwrite)
        files = space_files(pipeline)
        self.files: dict[str, Content] = {n: f for n, f in files.items() if n != CARD}
        self.files[CARD] = files[CARD]

    def lacking(self, held: Held) -> Changes:
        lacking = {name: file for name, file in self.files.items() if not held.has(name, file)}
        ours = [name for name in held.files if name.startswith(PACKAGES)]
        return Changes(lacking, [name for name in ours if name not in self.files])
