"""What the step `preprocess` is told."""

from pydantic import Field

from modelyard.components.preprocess.settings import Preparation
from modelyard.components.settings import Spec


class PreprocessSpec(Spec):
    """How the examples are split and normalised."""

    preparation: Preparation = Field(description="How the examples are split and normalised.")
