"""What of a log a step itself wrote."""

from modelyard.components.explain import words

INPUT = ["I1126 22:13:44.735500 15 main.go:618] Got executor_input:", "{", '  "inputs": {', "  }", "}"]


def test_the_end_of_a_log_shows_nothing_of_a_value_that_began_before() -> None:
    ours = ["epoch 1", "epoch 2"]
    assert words.own([*INPUT, *ours]) == ours
    for cut in range(1, len(INPUT)):
        assert words.own(words.whole([*INPUT[cut:], *ours])) == ours
    assert words.own(words.whole([*ours, *INPUT])) == ours
    assert words.whole(ours) == ours
