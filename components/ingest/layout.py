"""How pictures lie in folders, from the names alone.

    cats/1.png  dogs/2.jpg                                     one split, `all`
    train/cats/1.png  train/dogs/2.jpg  test/cats/3.png …      the splits train, test and validation (or val)

One more folder around all of it, as many archives have, is looked through.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelyard.components.errors import DataError

SPLITS = {"train": "train", "test": "test", "validation": "validation", "val": "validation"}

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """`above` folders are around all of it; `folders` has a split and a label for each class folder."""

    above: int
    classes: tuple[str, ...]
    folders: dict[Parts, tuple[str, int]]

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(dict.fromkeys(split for split, _ in self.folders.values()))

    def place(self, name: str) -> tuple[str, int]:
        """Return the split and the label of the picture with this name."""
        return self.folders[tuple(name.split("/")[self.above : -1])]


def layout(pictures: Sequence[str], folders: Iterable[str]) -> Layout:
    """Return where the classes are; `folders` may name empty ones.

    Raises:
        DataError: a picture lies outside of a class folder, or a class is empty. The message speaks of "it";
            the caller says what.
    """
    if not pictures:
        raise DataError("it has no pictures. Put them in one folder per class.")
    files = [tuple(name.split("/")) for name in pictures]
    around = [tuple(name.split("/")) for name in folders]
    above = _above(files, around)
    roots = {name[above] for name in (*files, *around) if len(name) > above}
    with_splits = roots <= SPLITS.keys() and any(len(name) > above + 2 for name in files)
    depth = above + (2 if with_splits else 1)
    for name in files:
        if len(name) != depth + 1:
            raise DataError(
                f"{'/'.join(name)!r} does not lie in a class folder. Pictures lie in one folder per class, "
                "or in such folders inside train, test and validation: move it there, or remove it."
            )
    full = {name[above:-1] for name in files}
    classes = tuple(sorted({name[-1] for name in full} | {name[-1] for name in around if len(name) == depth}))
    groups = [(root,) for root in SPLITS if root in roots] if with_splits else [()]
    places = {
        (*group, name): (SPLITS[group[0]] if group else "all", label)
        for group in groups
        for label, name in enumerate(classes)
    }
    if empty := next((folder for folder in places if folder not in full), None):
        raise DataError(
            f"the folder {'/'.join(empty)!r} has no pictures. Add pictures of this class, or remove all its "
            "folders."
        )
    if len(set(places.values())) < len(places):
        raise DataError("it has a folder val and a folder validation. Keep one of them.")
    return Layout(above, classes, places)


def _above(files: list[Parts], folders: list[Parts]) -> int:
    """Return 1 when all lies in one folder that is neither a class nor a split, else 0."""
    roots = {name[0] for name in (*files, *folders)}
    return int(len(roots) == 1 and not roots & SPLITS.keys() and any(len(name) > 2 for name in files))
