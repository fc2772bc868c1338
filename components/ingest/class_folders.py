"""Finds the classes of an image source from the names of its files and folders.

    cats/1.png  cats/siamese/2.png  dogs/3.jpg                  one split, `all`
    Train/cats/1.png  Train/dogs/2.jpg  valid/cats/3.png …      the splits train, test and validation

Outer folders that contain all class folders are skipped. Files outside of the class folders are ignored if
they are not images.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from modelyard.components import images
from modelyard.components.errors import DataError, pluralize, summarize_names

SPLITS = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"val": "validation", "valid": "validation", "validation": "validation"},
}
"""Names of split folders in lower case, with the split."""
DOCUMENTS = frozenset(
    f".{name}"
    for name in (
        *("txt", "md", "rst", "csv", "tsv", "json", "jsonl", "xml", "yaml", "yml", "html", "htm", "parquet"),
        *("pdf", "log", "ini", "toml", "py", "ipynb", "sh", "db", "doc", "docx", "xls", "xlsx"),
    )
)
"""Suffixes of files that are not images: a folder with only such files is not a class."""

Parts = tuple[str, ...]


@dataclass(frozen=True)
class ClassFolders:
    """The class folders of a source.

    `prefix_depth` is the number of outer folders that contain all class folders. `names` are the classes in
    label order. `folders` maps a class folder, relative to the outer folders, to its split and label. `notes`
    explain how the names were interpreted.
    """

    prefix_depth: int
    names: tuple[str, ...]
    folders: dict[Parts, tuple[str, int]]
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(dict.fromkeys(split for split, _ in self.folders.values()))

    @property
    def depth(self) -> int:
        """The number of folders above an image directly in a class folder."""
        return self.prefix_depth + len(next(iter(self.folders)))

    def split_target(self, name: str) -> tuple[str, int] | None:
        """Return the split and the label of a file; None if it is outside of the class folders."""
        parts = tuple(name.split("/"))
        return self.folders.get(parts[self.prefix_depth : self.depth]) if len(parts) > self.depth else None


def find_class_folders(files: Sequence[str], folders: Iterable[str]) -> ClassFolders:
    """Return the class folders; `folders` may include empty ones.

    Raises:
        DataError: an image is outside of the class folders, a class is empty, or splits and other folders are
            mixed. The caller puts the name of the source before the message.
    """
    if not has_images(files):
        raise DataError("it has no images. Put them in one folder per class.")
    names = [tuple(name.split("/")) for name in files]
    content = [name for name in names if _get_suffix(name) not in DOCUMENTS]
    non_empty = {name[:end] for name in names for end in range(1, len(name))}
    paths = [tuple(folder.split("/")) for folder in folders]
    empty = sorted({path[:end] for path in paths for end in range(1, len(path) + 1)} - non_empty)
    prefix_depth, roots = _find_prefix(content, empty)
    with_splits = all(map(_is_split, roots))
    if not with_splits:
        _check_mixed_splits(content, prefix_depth, roots)
    depth = prefix_depth + (2 if with_splits else 1)
    _check_unlabeled_images(content, depth)
    present = {name[prefix_depth:depth] for name in content if len(name) > depth}
    if not present:
        raise DataError(
            f"its folders {summarize_names(sorted(roots))} have no class folders. Add one per class."
        )
    classes = tuple(
        sorted({name[-1] for name in present} | {name[-1] for name in empty if len(name) == depth})
    )
    targets = _label_folders(classes, roots if with_splits else ())
    if empty_folder := next((folder for folder in targets if folder not in present), None):
        raise DataError(
            f"the folder {'/'.join(empty_folder)!r} has no images. Add images of this class, or remove "
            f"{'the class from all splits' if with_splits else 'the folder'}."
        )
    if len(set(targets.values())) < len(targets):
        split_folders = " and ".join(
            f"a folder {root}" for root in dict.fromkeys(root for root, _ in targets)
        )
        raise DataError(f"it has {split_folders}, and two of these are the same split. Remove one of them.")
    notes = _write_notes(names, prefix_depth, depth, targets)
    return ClassFolders(prefix_depth, classes, targets, tuple(notes))


def _label_folders(classes: Sequence[str], split_folders: Iterable[str]) -> dict[Parts, tuple[str, int]]:
    """Return the split and the label of each class folder, relative to the outer folders."""
    parents: list[tuple[Parts, str]] = [
        ((folder,), split)
        for name, split in SPLITS.items()
        for folder in sorted(split_folders)
        if folder.lower() == name
    ]
    return {
        (*parent, name): (split, label)
        for parent, split in parents or [((), "all")]
        for label, name in enumerate(classes)
    }


def has_images(files: Iterable[str]) -> bool:
    """Return whether there are images: by suffix, or files in folders without a document suffix."""
    names = [tuple(name.split("/")) for name in files]
    return any(_is_image(name) or (len(name) > 1 and _get_suffix(name) not in DOCUMENTS) for name in names)


def _get_suffix(name: Parts) -> str:
    return PurePosixPath(name[-1]).suffix.lower()


def _is_image(name: Parts) -> bool:
    return _get_suffix(name) in images.SUFFIXES


def _is_split(folder: str) -> bool:
    return folder.lower() in SPLITS


def _find_prefix(content: list[Parts], empty: list[Parts]) -> tuple[int, set[str]]:
    """Return the number of outer folders, and the names of the class or split folders in them."""
    prefix_depth = 0
    while True:
        roots = {name[prefix_depth] for name in content if len(name) > prefix_depth + 1}
        roots |= {name[prefix_depth] for name in empty if len(name) == prefix_depth + 1}
        unlabeled = any(len(name) == prefix_depth + 1 and _is_image(name) for name in content)
        deeper = any(len(name) > prefix_depth + 2 for name in content)
        if len(roots) != 1 or unlabeled or not deeper or _is_split(*roots):
            return prefix_depth, roots
        prefix_depth += 1


def _check_mixed_splits(content: list[Parts], prefix_depth: int, roots: set[str]) -> None:
    """Raise DataError for split folders beside other folders: the model would learn to distinguish splits."""
    names_below = {
        root: {
            name[prefix_depth + 1]
            for name in content
            if len(name) > prefix_depth + 2 and name[prefix_depth] == root
        }
        for root in roots
    }
    for root, class_names in sorted(names_below.items()):
        if not SPLITS.keys() & set(re.split("[^a-z]+", root.lower())):
            continue
        for other in sorted(roots - {root}):
            if not _is_split(other) and (_is_split(root) or class_names & names_below[other]):
                raise DataError(
                    f"the folder {root!r} looks like a split, but {other!r} is none of train, test and "
                    "validation. Put class folders into the folders of the splits, and remove other folders; "
                    f"or, if {root!r} is a class, rename it or set data.index."
                )


def _check_unlabeled_images(content: list[Parts], depth: int) -> None:
    """Raise DataError for images outside of class folders: they have no label."""
    if files := sorted("/".join(name) for name in content if len(name) <= depth and _is_image(name)):
        rest = f" and {len(files) - 1:,} more are" if len(files) > 1 else " is"
        raise DataError(
            f"{files[0]!r}{rest} not in a class folder. Move images into one folder per class, or into "
            "such folders inside train, test and validation; or remove them, or set data.index."
        )


def _write_notes(
    names: list[Parts], prefix_depth: int, depth: int, targets: dict[Parts, tuple[str, int]]
) -> Iterable[str]:
    if files := sorted(
        "/".join(name) for name in names if len(name) <= depth or name[prefix_depth:depth] not in targets
    ):
        verb = "is" if len(files) == 1 else "are"
        yield f"{summarize_names(files)} {verb} outside of the class folders and not used."
    count = sum(len(name) > depth + 1 and name[prefix_depth:depth] in targets for name in names)
    if count:
        yield f"Files in subfolders of a class folder belong to that class: {pluralize(count, 'file')}."
