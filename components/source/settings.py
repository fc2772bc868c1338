"""The section `data` of the configuration: the source of the examples."""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from modelyard.components.settings import Settings
from modelyard.components.source.checks import has_credentials
from modelyard.components.store.storage import find_storage


class Resize(Settings):
    """How images are resized."""

    height: int = Field(ge=1, le=4096, description="Height in pixels.")
    width: int = Field(ge=1, le=4096, description="Width in pixels.")
    policy: Literal["stretch", "crop", "pad"] = Field(
        default="stretch",
        description="stretch: ignore the aspect ratio; crop: fill and crop; pad: fit and pad with black.",
    )


@dataclass(frozen=True)
class Kind:
    """A kind of source; `data.kind` is its name.

    Attributes:
        reader: the module of components/ingest/ whose `read(path, source)` returns its Examples.
        problems: the problems that its targets are for.
        keys: the keys of `data` that only this kind has.
        bundled_files: files in scikit-learn's data folder, for a kind without `data.source`.
        classes: the names of the classes, if all sources of this kind have the same.
        shape: the shape of an example, if all sources of this kind have the same.
    """

    reader: str
    problems: tuple[str, ...] = ("classification",)
    keys: tuple[str, ...] = ()
    bundled_files: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None


KINDS = {
    "digits": Kind(
        "scikit_learn",
        bundled_files=("digits.csv.gz",),
        classes=tuple("0123456789"),
        shape=(8, 8, 1),
    ),
    "cifar10": Kind("cifar10", shape=(32, 32, 3)),
    "images": Kind(
        "image_files",
        problems=("classification", "regression"),
        keys=("resize", "channels", "index", "max_bad"),
    ),
    "npz": Kind("npz", problems=("classification", "regression"), keys=("classes",)),
    "diabetes": Kind(
        "scikit_learn",
        problems=("regression",),
        bundled_files=("diabetes_data_raw.csv.gz", "diabetes_target.csv.gz"),
        shape=(10,),
    ),
}
"""The registry of readers; docs/extending.md shows how to add one."""


class SourceKeys(Settings):
    """The keys of `data`: the source of the examples and their format."""

    kind: Literal["digits", "diabetes", "cifar10", "images", "npz"] = Field(
        description="digits and diabetes: datasets of scikit-learn; cifar10: the official archive, in its "
        "binary or Python form; images: image files in class folders or with an index, in a folder, .zip or "
        ".tar.gz, or Parquet files with images and labels; npz: NumPy arrays x and y, or x_train, y_train, "
        "x_test and y_test. docs/data.md describes images and npz."
    )
    source: str | None = Field(
        default=None,
        description="Path or URL of the data: https://, gs:// or the scheme of an installed storage package. "
        "A relative path is relative to the configuration file. For https://, user and password come from "
        "~/.netrc. Not for digits and diabetes.",
    )
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the archive or file, 64 hexadecimal digits, checked before anything is read.",
    )
    channels: Literal[1, 3] = Field(
        default=3,
        description="images only: channels of the examples; 1 converts images to grayscale, 3 to RGB.",
    )
    resize: Resize | None = Field(
        default=None,
        description="images only: resize all images to one size. Without it, all images must have the same "
        "size.",
    )
    index: str | None = Field(
        default=None,
        pattern=r"\.(csv|tsv|jsonl)$",
        description="images only: file inside the source that lists the images: .csv, .tsv or .jsonl, with "
        "the columns path (or file_name, filename, file, image), label (or target, class), and optionally "
        "split (train, test or validation). Paths are relative to this file, or else to the source. "
        "Default: metadata.csv or metadata.jsonl, as in Hugging Face's image folders, if there is one.",
    )
    max_bad: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="images only: maximum share of unusable files, which are skipped and listed in the "
        "report. With 0, a single unusable file fails the run.",
    )
    classes: tuple[str, ...] | None = Field(
        default=None,
        strict=False,
        description="npz, for classification: names of the classes in the order of the labels. Default: the "
        "labels.",
    )
    max_bytes: int = Field(
        default=20 * 2**30, ge=1, description="Maximum size of a download or an unpacked archive, in bytes."
    )
    timeout: float = Field(
        default=30.0, gt=0, description="Seconds without data after which a download fails."
    )
    endpoint: str | None = Field(default=None, description="URL of a GCS emulator, for gs:// in tests.")
    user_project: str | None = Field(
        default=None,
        description="Google Cloud project that is billed for requests, if the bucket has Requester Pays.",
    )

    def known_names(self) -> tuple[str, ...] | None:
        """Return the names of the classes if they are known before the data is read."""
        return self.classes or KINDS[self.kind].classes

    def known_shape(self) -> tuple[int, ...] | None:
        """Return the shape of an example if it is known before the data is read."""
        if self.resize:
            return (self.resize.height, self.resize.width, self.channels)
        return KINDS[self.kind].shape

    @model_validator(mode="after")
    def _combination(self) -> Self:
        kind = KINDS[self.kind]
        if kind.bundled_files and (self.source or self.sha256):
            raise ValueError(f"{self.kind} ships with scikit-learn: remove data.source and data.sha256")
        if not (kind.bundled_files or self.source):
            raise ValueError(f"data.kind is {self.kind}, which requires data.source: a path or a URL")
        for name, other in KINDS.items():
            for key in other.keys if name != self.kind else ():
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"data.{key} is for {name}, not for {self.kind}: remove it")
        if self.source and has_credentials(self.source):
            raise ValueError(
                "data.source contains a password or a signature, which would appear in logs and in the "
                "manifest of the version: put user and password into ~/.netrc, or download the file of a "
                "signed URL yourself"
            )
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise ValueError(
                f"data.classes is {list(self.classes)}, with a duplicate name: give each class another name"
            )
        for key in ("endpoint", "user_project"):
            if getattr(self, key) and not find_storage(self.source or ".", "data.source").takes_endpoint:
                raise ValueError(f"data.{key} is for gs://: remove it")
        return self


class Source(SourceKeys):
    """The source as the steps receive it: the keys of `data`, and the problem."""

    problem: str = "classification"

    @model_validator(mode="after")
    def _has_targets(self) -> Self:
        check_problem(self, self.problem)
        return self


def check_problem(keys: SourceKeys, problem: str) -> None:
    """Raise ValueError if the targets of a source are not for this problem."""
    if keys.classes and problem != "classification":
        raise ValueError(f"data.classes is for problem: classification, not for {problem}: remove it")
    if problem not in (names := KINDS[keys.kind].problems):
        able = [name for name, other in KINDS.items() if problem in other.problems]
        raise ValueError(
            f"problem is {problem}, but the targets of data.kind {keys.kind} are for {' or '.join(names)}: "
            f"change problem, or set data.kind to {' or '.join(able) or 'another'}"
        )
