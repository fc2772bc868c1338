"""What the step `explain` is told."""

from pydantic import Field

from modelyard.components.settings import Spec
from modelyard.components.store.settings import Store


class ExplainSpec(Spec):
    """Whose run ended."""

    name: str = Field(description="The model's name.")
    store: Store = Field(description="Where models live.")
