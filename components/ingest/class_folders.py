"""Where the classes are in a source of pictures, by the names of its files and folders.

    cats/1.png  cats/siamese/2.png  dogs/3.jpg                  one split, `all`
    Train/cats/1.png  Train/dogs/2.jpg  valid/cats/3.png …      the splits train, test and validation

Folders around all of it are looked through. Beside the class folders, what is no picture is left out.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from modelyard.components import images
from modelyard.components.errors import DataError

SPLITS = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"val": "validation", "valid": "validation", "validation": "validation"},
}
"""What the folder of a split may be called, in lower case, and the split."""
DOCUMENTS = frozenset(
    f".{name}"
    for name in (
        *("txt", "md", "rst", "csv", "tsv", "json", "jsonl", "xml", "yaml", "yml", "html", "htm", "parquet"),
        *("pdf", "log", "ini", "toml", "py", "ipynb", "sh", "db", "doc", "docx", "xls", "xlsx"),
    )
)
"""Suffixes of what lies beside pictures: a folder with nothing else is no class."""

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """The class folders: `above` folders are around all of it, `folders` has a split and a label for each.

    `notes` say what needed a decision.
    """

    above: int
    classes: tuple[str, ...]
    folders: dict[Parts, tuple[str, int]]
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(dict.fromkeys(split for split, _ in self.folders.values()))

    @property
    def depth(self) -> int:
        """The number of folders above a picture that lies in a class folder."""
        return self.above + len(next(iter(self.folders)))

    def place(self, name: str) -> tuple[str, int] | None:
        """Return the split and the label of the file with this name; None for one outside of the classes."""
        parts = tuple(name.split("/"))
        return self.folders.get(parts[self.above : self.depth]) if len(parts) > self.depth else None


def layout(files: Sequence[str], folders: Iterable[str]) -> Layout:
    """Return where the classes are; `folders` may name empty ones.

    Raises:
        DataError: a picture lies outside of a class folder, a class is empty, or splits and other folders are
            mixed. The message speaks of "it"; the caller says what.
    """
    if not has_images(files):
        raise DataError("it has no pictures. Put them in one folder per class.")
    names = [tuple(name.split("/")) for name in files]
    content = [name for name in names if _suffix(name) not in DOCUMENTS]
    full = {name[:end] for name in names for end in range(1, len(name))}
    given = {tuple(folder.split("/")) for folder in folders}
    empty = sorted({name[:end] for name in given for end in range(1, len(name) + 1)} - full)
    above = _above(content, empty)
    roots = {name[above] for name in content if len(name) > above + 1}
    roots |= {name[above] for name in empty if len(name) == above + 1}
    with_splits = all(map(_split, roots)) and any(len(name) > above + 2 for name in content)
    if not with_splits:
        _refuse_mixed(content, above, roots)
    depth = above + (2 if with_splits else 1)
    _refuse_loose(content, depth)
    found = {name[above:depth] for name in content if len(name) > depth}
    classes = tuple(sorted({name[-1] for name in found} | {name[-1] for name in empty if len(name) == depth}))
    groups: list[Parts] = [()]
    if with_splits:
        groups = [(root,) for split in SPLITS for root in sorted(roots) if root.lower() == split]
    places = {
        (*group, name): (SPLITS[group[0].lower()] if group else "all", label)
        for group in groups
        for label, name in enumerate(classes)
    }
    if without := next((folder for folder in places if folder not in found), None):
        raise DataError(
            f"the folder {'/'.join(without)!r} has no pictures. Add pictures of this class, or remove all "
            "its folders."
        )
    if len(set(places.values())) < len(places):
        both = " and ".join(f"a folder {group[0]}" for group in groups)
        raise DataError(f"it has {both}, of which two are the same split. Keep one of them.")
    return Layout(above, classes, places, tuple(_notes(names, above, depth, places)))


def has_images(files: Iterable[str]) -> bool:
    """Say whether there are pictures: files called so, or in a folder and not called a document."""
    names = [tuple(name.split("/")) for name in files]
    return any(_is_picture(name) or (len(name) > 1 and _suffix(name) not in DOCUMENTS) for name in names)


def _suffix(name: Parts) -> str:
    return PurePosixPath(name[-1]).suffix.lower()


def _is_picture(name: Parts) -> bool:
    return _suffix(name) in images.SUFFIXES


def _split(root: str) -> str | None:
    return SPLITS.get(root.lower())


def _above(content: list[Parts], empty: list[Parts]) -> int:
    """Return how many folders are around all of it: those that hold one folder, which is no class."""
    above = 0
    while True:
        roots = {name[above] for name in content if len(name) > above + 1}
        roots |= {name[above] for name in empty if len(name) == above + 1}
        loose = any(len(name) == above + 1 and _is_picture(name) for name in content)
        deeper = any(len(name) > above + 2 for name in content)
        if len(roots) != 1 or loose or not deeper or _split(*roots):
            return above
        above += 1


def _refuse_mixed(content: list[Parts], above: int, roots: set[str]) -> None:
    """Refuse folders that look like splits beside others: training would learn to tell the splits apart."""
    below = {
        root: {name[above + 1] for name in content if len(name) > above + 2 and name[above] == root}
        for root in roots
    }
    for root, inner in sorted(below.items()):
        others = sorted(
            other for other in roots - {root} if not _split(other) and (_split(root) or inner & below[other])
        )
        words = SPLITS.keys() & set(re.split("[^a-z]+", root.lower()))
        if words and inner and others:
            raise DataError(
                f"the folder {root!r} looks like a split, with class folders in it, and {others[0]!r} is "
                "none of train, test and validation. Rename the folders of the splits so, and remove others."
            )


def _refuse_loose(content: list[Parts], depth: int) -> None:
    """Refuse pictures outside of class folders: they have no label."""
    if loose := sorted("/".join(name) for name in content if len(name) <= depth and _is_picture(name)):
        more = f" and {len(loose) - 1:,} more do" if len(loose) > 1 else " does"
        raise DataError(
            f"{loose[0]!r}{more} not lie in a class folder. Pictures lie in one folder per class, or in such "
            "folders inside train, test and validation: move them there, remove them, or set data.index."
        )


def _notes(names: list[Parts], above: int, depth: int, places: dict[Parts, tuple[str, int]]) -> Iterable[str]:
    beside = sorted("/".join(name) for name in names if len(name) <= depth or name[above:depth] not in places)
    if beside:
        yield f"Beside the class folders, {listed(beside)} {'is' if len(beside) == 1 else 'are'} not used."
    nested = sum(len(name) > depth + 1 and name[above:depth] in places for name in names)
    if nested:
        yield f"{nested:,} files lie in folders inside a class folder, and belong to that class."


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
