"""The input of the step `explain`."""

from pydantic import Field

from modelyard.components.settings import Spec
from modelyard.components.store.settings import Store


class ExplainSpec(Spec):
    """The model and its store."""

    name: str = Field(description="The model's name.")
    store: Store = Field(description="The model store.")
