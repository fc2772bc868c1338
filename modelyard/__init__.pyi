"""The public API; see pipelines/api.py."""

from modelyard.pipelines.api import (
    Config as Config,
)
from modelyard.pipelines.api import (
    ModelStore as ModelStore,
)
from modelyard.pipelines.api import (
    ModelyardError as ModelyardError,
)
from modelyard.pipelines.api import (
    Run as Run,
)
from modelyard.pipelines.api import (
    RunInfo as RunInfo,
)
from modelyard.pipelines.api import (
    RunSummary as RunSummary,
)
from modelyard.pipelines.api import (
    compile_pipeline as compile_pipeline,
)
from modelyard.pipelines.api import (
    list_runs as list_runs,
)
from modelyard.pipelines.api import (
    load_config as load_config,
)
from modelyard.pipelines.api import (
    load_model as load_model,
)
from modelyard.pipelines.api import (
    open_run as open_run,
)
from modelyard.pipelines.api import (
    open_store as open_store,
)
from modelyard.pipelines.api import (
    plan as plan,
)
from modelyard.pipelines.api import (
    predict as predict,
)
from modelyard.pipelines.api import (
    promote as promote,
)
from modelyard.pipelines.api import (
    rollback as rollback,
)
from modelyard.pipelines.api import (
    run as run,
)
from modelyard.pipelines.api import (
    step_specs as step_specs,
)
from modelyard.pipelines.api import (
    submit as submit,
)
