"""`data`, the part that says where the examples come from."""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from modelyard.components.settings import Settings
from modelyard.components.source.checks import has_credentials
from modelyard.components.store.storage import find_storage


class Resize(Settings):
    """How images of any size become one size."""

    height: int = Field(ge=1, le=4096, description="Height in pixels.")
    width: int = Field(ge=1, le=4096, description="Width in pixels.")
    policy: Literal["stretch", "crop", "pad"] = Field(
        default="stretch",
        description="stretch: ignore the aspect ratio; crop: fill and cut the middle; pad: fit, rest black.",
    )


@dataclass(frozen=True)
class Kind:
    """A kind of source; `data.kind` is its name.

    Attributes:
        reader: the module of components/ingest/ whose `read(path, source)` returns its Examples.
        problems: those whose targets it has.
        keys: of `data`, those that are for such sources alone.
        bundled_files: files of scikit-learn's data folder, for a kind that needs no `data.source`.
        classes: their names, where every such source has the same.
    """

    reader: str
    problems: tuple[str, ...] = ("classification",)
    keys: tuple[str, ...] = ()
    bundled_files: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


KINDS = {
    "digits": Kind("digits", bundled_files=("digits.csv.gz",), classes=tuple("0123456789")),
    "cifar10": Kind("cifar10"),
    "images": Kind(
        "image_files",
        problems=("classification", "regression"),
        keys=("resize", "channels", "index", "max_bad"),
    ),
    "npz": Kind("npz", problems=("classification", "regression"), keys=("classes",)),
    "diabetes": Kind(
        "diabetes",
        problems=("regression",),
        bundled_files=("diabetes_data_raw.csv.gz", "diabetes_target.csv.gz"),
    ),
}
"""The registry of readers; docs/extending.md says how one is added."""


class SourceKeys(Settings):
    """Where the examples come from and what they are: keys of `data`."""

    kind: Literal["digits", "diabetes", "cifar10", "images", "npz"] = Field(
        description="digits, diabetes: sets that scikit-learn ships; cifar10: the official archive (binary "
        "or python form); images: PNG, JPEG, WebP, GIF, BMP and TIFF, one folder per class, or such "
        "folders in train, test and validation, or with an index, as a directory, .zip or .tar.gz, or in "
        "Parquet files with a column of images and one of labels; npz: "
        "arrays x and y, or x_train, y_train, x_test and y_test, whose y are labels (integers from 0 or 1, "
        "texts or one-hot rows), or numbers with problem: regression."
    )
    source: str | None = Field(
        default=None,
        description="Path, or URL with https://, gs:// or the scheme of another storage that is installed. A "
        "relative path is relative to the configuration file. "
        "User and password come from ~/.netrc. Not for digits and diabetes.",
    )
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the archive or file, checked before anything is read.",
    )
    channels: Literal[1, 3] = Field(
        default=3, description="images only: 1 makes them grayscale, 3 makes them RGB."
    )
    resize: Resize | None = Field(
        default=None,
        description="images only: without it every image must have the same size.",
    )
    index: str | None = Field(
        default=None,
        pattern=r"\.(csv|tsv|jsonl)$",
        description="images only: a .csv, .tsv or .jsonl inside the source, with the columns path (or "
        "file_name, filename, file, image), label (or target, class), and optionally split (train, test or "
        "validation). Paths are relative to it, or else to the source. Without this key, metadata.csv and "
        "metadata.jsonl are looked for, as Hugging Face has them.",
    )
    max_bad: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="images only: share of the files that may be unusable; they are skipped, and listed in "
        "the report. With 0, any such file fails the run, which lists all of them.",
    )
    classes: tuple[str, ...] | None = Field(
        default=None,
        strict=False,
        description="npz, for classification: the classes' names in label order; default: the labels "
        "themselves.",
    )
    max_bytes: int = Field(
        default=20 * 2**30,
        ge=1,
        description="Most bytes that a download or an unpacked archive may have.",
    )
    timeout: float = Field(
        default=30.0, gt=0, description="Seconds without a byte after which a download is given up."
    )
    endpoint: str | None = Field(
        default=None,
        description="Address of a GCS emulator, with its scheme; only for gs:// and for tests.",
    )
    user_project: str | None = Field(
        default=None,
        description="Google Cloud project that pays for requests, if the bucket has requester pays.",
    )

    def known_names(self) -> tuple[str, ...] | None:
        """Return the names of an answer's values, where they are known before the data is read."""
        return self.classes or KINDS[self.kind].classes

    @model_validator(mode="after")
    def _combination(self) -> Self:
        kind = KINDS[self.kind]
        if kind.bundled_files and (self.source or self.sha256):
            raise ValueError(f"{self.kind} ships with scikit-learn: remove data.source and data.sha256")
        if not (kind.bundled_files or self.source):
            raise ValueError(f"{self.kind} needs data.source: a path or a URL")
        for name, other in KINDS.items():
            for key in other.keys if name != self.kind else ():
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"data.{key} is for {name}, not for {self.kind}: remove it")
        if self.source and has_credentials(self.source):
            raise ValueError(
                "data.source holds a password or a signature, which would be kept in logs and in the "
                "version's manifest: put user and password into ~/.netrc; download what has a signed address "
                "yourself"
            )
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"data.classes is {list(self.classes)}, with a name twice: give each its own")
        for key in ("endpoint", "user_project"):
            if getattr(self, key) and not find_storage(self.source or ".", "data.source").takes_endpoint:
                raise ValueError(f"data.{key} is for gs://: remove it")
        return self


class Source(SourceKeys):
    """What the steps are told of the source: the keys of `data`, and the problem that its targets are for."""

    problem: str = "classification"

    @model_validator(mode="after")
    def _has_targets(self) -> Self:
        check_problem(self, self.problem)
        return self


def check_problem(keys: SourceKeys, problem: str) -> None:
    """Raise ValueError when the targets of a source are of another problem."""
    if keys.classes and problem != "classification":
        raise ValueError(f"data.classes is for problem: classification, not for {problem}: remove it")
    if problem not in (known := KINDS[keys.kind].problems):
        able = [name for name, other in KINDS.items() if problem in other.problems]
        raise ValueError(
            f"problem is {problem}, but the targets of data.kind {keys.kind} are for {' or '.join(known)}: "
            f"change problem, or data.kind to {' or '.join(able) or 'another'}"
        )
