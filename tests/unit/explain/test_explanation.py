"""The lines of a log that the step itself wrote."""

from modelyard.components.explain.explanation import last_line, quote_end, step_lines

LOG = [
    "I1126 22:13:44.735500      15 main.go:67] Setting log level to: '1'",
    "I1126 22:13:44.735500 15 main.go:618] Got executor_input:",
    "{",
    '  "inputs": {',
    "  }",
    "}",
    "[KFP Executor 2026-11-29 04:08:06,279 INFO]: Looking for component `train`",
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795944759.702085    7871 port.cc:153] oneDNN custom operations are on.",
    "epoch 1",
    "",
    "epoch 2",
    "F1126 22:16:07.031499      15 main.go:59] failed to execute component: exit status 1",
    'time=2026-11-26T22:16:07.928Z level=INFO msg="sub-process exited" argo=true error="exit status 1"',
    "Error: exit status 1",
]


def test_step_lines_exclude_those_of_kfp_and_argo():
    assert list(step_lines(LOG)) == ["epoch 1", "epoch 2"]
    assert last_line(LOG) == "epoch 2"
    assert last_line(LOG[:4]) == ""
    fatal = (
        "F0000 00:00:1795944759.702085    7871 cpu_feature_guard.cc:227] The TensorFlow library was compiled"
    )
    assert last_line([*LOG, fatal]) == fatal


def test_the_last_lines_are_quoted_verbatim():
    lines = [f"  line {number}" for number in range(9)]
    assert quote_end([*lines, *LOG[-3:]]).splitlines()[1:] == lines[-5:]


def test_a_log_without_lines_of_the_step_is_quoted():
    assert quote_end(LOG[-3:]).splitlines()[1:] == LOG[-3:]
    assert quote_end(["", ""]) == "It wrote no log."
