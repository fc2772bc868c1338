"""Golden requests: a real server must give the answers that evaluate saw."""

from modelyard.components.artifacts import Golden
from modelyard.components.deploy.peer import Peer
from modelyard.components.errors import DeployError


def replay(peer: Peer, name: str, version: int, golden: Golden, tolerance: float) -> None:
    """Send each golden request to the server and compare its answer.

    Raises:
        DeployError: an answer is missing, or a probability differs by more than `tolerance`.
    """
    path = f"/v1/models/{name}/versions/{version}:predict"
    for number, (instance, expected) in enumerate(zip(golden.instances, golden.predictions, strict=True)):
        try:
            answer = peer.post(path, {"instances": [instance]})["predictions"][0]
            differences = [abs(p - q) for p, q in zip(answer, expected, strict=True)]
        except (DeployError, LookupError, TypeError, ValueError) as error:
            raise DeployError(
                f"Version {version} of {name} did not answer golden request {number} as it should "
                f"({error}). `modelyard serve` with --version shows the server's own words."
            ) from error
        if not all(difference <= tolerance for difference in differences):  # NaN is not
            raise DeployError(
                f"Version {version} of {name} answers golden request {number} otherwise than evaluate "
                f"saw: probabilities differ by {max(differences):.2g} and {tolerance:.2g} is allowed "
                "(rollout.golden_tolerance). Evaluate and serve with the same onnxruntime, then run again."
            )
