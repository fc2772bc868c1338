"""`data`, the part that says where the examples come from."""

from typing import Literal

from pydantic import Field, model_validator

from modelyard.components.settings import Settings
from modelyard.components.source.checks import holds_secret
from modelyard.components.store.storage import find_storage


class Resize(Settings):
    """How pictures of any size become one size."""

    height: int = Field(ge=1, le=4096, description="Height in pixels.")
    width: int = Field(ge=1, le=4096, description="Width in pixels.")
    policy: Literal["stretch", "crop", "pad"] = Field(
        default="stretch",
        description="stretch: ignore the aspect ratio; crop: fill and cut the middle; pad: fit, rest black.",
    )


class Source(Settings):
    """Where the examples come from and what they are."""

    kind: Literal["digits", "cifar10", "images", "npz"] = Field(
        description="digits: the set that scikit-learn ships; cifar10: the official archive (binary or "
        "python form); images: PNG and JPEG, one folder per class, or such folders in train, test and "
        "validation, as a directory, .zip or .tar.gz; npz: arrays x and y, or x_train, y_train, x_test and "
        "y_test."
    )
    source: str | None = Field(
        default=None,
        description="Path, or URL with https://, gs:// or the scheme of another storage that is installed. A "
        "relative path is relative to the configuration file. "
        "User and password come from ~/.netrc. Not for digits.",
    )
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the archive or file, checked before anything is read.",
    )
    channels: Literal[1, 3] = Field(
        default=3, description="images only: 1 makes pictures grey, 3 makes them RGB."
    )
    resize: Resize | None = Field(
        default=None,
        description="images only: without it every picture must have the same size.",
    )
    classes: tuple[str, ...] | None = Field(
        default=None,
        strict=False,
        description="npz only: the classes' names in label order; default 0, 1, 2, … to the largest label.",
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

    @model_validator(mode="after")
    def _combination(self) -> "Source":
        if self.kind == "digits" and (self.source or self.sha256):
            raise ValueError("digits ships with scikit-learn: remove data.source and data.sha256")
        if self.kind != "digits" and not self.source:
            raise ValueError(f"{self.kind} needs data.source: a path or a URL")
        if self.kind != "images" and self.resize:
            raise ValueError(f"data.resize is for images, not for {self.kind}: remove it")
        if self.kind != "images" and self.channels != 3:
            raise ValueError(f"data.channels is for images, not for {self.kind}: remove it")
        if self.kind != "npz" and self.classes:
            raise ValueError(f"data.classes is for npz, not for {self.kind}: remove it")
        if self.source and holds_secret(self.source):
            raise ValueError(
                "data.source holds a password or a signature, which would be kept in logs and in the "
                "version's manifest: put user and password into ~/.netrc; download what has a signed address "
                "yourself"
            )
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"data.classes is {list(self.classes)}, with a name twice: give each its own")
        if self.endpoint and not find_storage(self.source or "", "data.source").takes_endpoint:
            raise ValueError("data.endpoint is for emulators of gs://: remove it")
        return self
