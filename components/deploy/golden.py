"""Golden requests: a real server must give the answers that evaluate saw."""

import httpx
import numpy as np

from components.artifacts import Golden
from components.errors import DeployError

MARK = {"x-modelyard-golden": "1"}  # metrics keep these requests apart from clients'


def replay(url: str, name: str, version: int, golden: Golden) -> None:
    """Send each golden request to the server and compare its answer.

    Raises:
        DeployError: an answer is missing or differs by more than `golden.tolerance`.
    """
    path = f"{url}/v1/models/{name}/versions/{version}:predict"
    with httpx.Client(timeout=30, headers=MARK) as client:
        for number, (instance, expected) in enumerate(zip(golden.instances, golden.predictions, strict=True)):
            try:
                response = client.post(path, json={"instances": [instance]}).raise_for_status()
                answer = np.asarray(response.json()["predictions"][0])
            except (httpx.HTTPError, KeyError, ValueError) as error:
                raise DeployError(
                    f"Version {version} of {name} did not answer golden request {number} ({error}), so it "
                    "was not promoted. `modelyard serve` with --version shows the server's own words."
                ) from error
            difference = float(np.abs(answer - np.asarray(expected)).max())
            if not difference <= golden.tolerance:
                raise DeployError(
                    f"Version {version} of {name} answers golden request {number} otherwise than evaluate "
                    f"saw: probabilities differ by {difference:.2g} and {golden.tolerance:.2g} is allowed. "
                    "It was not promoted. Evaluate and serve with the same onnxruntime, then run again."
                )
