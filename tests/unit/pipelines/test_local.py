import logging

from modelyard.pipelines.runners.local.execution import CacheHits, StepLog


def feed(log, *lines):
    for line in lines:
        log.write(line + "\n")


def states(log):
    return {step.name: step.state for step in log.steps()}


def test_states_and_logs_follow_what_kfp_prints(tmp_path):
    log = StepLog(("ingest", "train", "deploy"), tmp_path)
    feed(log, "09:14:11.456 - INFO - Executing task \x1b[96m'ingest'\x1b[0m", "    reading", "    done")
    assert states(log) == {"ingest": "running", "train": "waiting", "deploy": "waiting"}
    assert log.last_line == "done"
    feed(log, "09:14:12.000 - INFO - Task 'ingest' finished with status \x1b[92mSUCCESS\x1b[0m", "    raw: x")
    feed(log, "09:14:12.456 - INFO - Executing task 'train'", "    boom")
    feed(log, "09:14:13.000 - ERROR - Task 'train' finished with status FAILURE")
    log.settle()
    assert states(log) == {"ingest": "succeeded", "train": "failed", "deploy": "skipped"}
    assert log.path("ingest").read_text() == "reading\ndone\n"
    assert log.path("train").read_text() == "boom\n"
    assert not log.path("deploy").exists()


def test_a_step_cannot_forge_an_event(tmp_path):
    log = StepLog(("train", "deploy"), tmp_path)
    feed(log, "09:14:11.456 - INFO - Executing task 'train'")
    feed(log, "    09:14:11.456 - INFO - Executing task 'deploy'")
    assert states(log)["deploy"] == "waiting"


def test_cache_hits_come_through_logging(tmp_path):
    log = StepLog(("train",), tmp_path)
    handler = CacheHits(log)
    handler.handle(logging.makeLogRecord({"msg": "Task train cache hit (key=1); skipping execution."}))
    (step,) = log.steps()
    assert (step.state, step.cached, step.seconds) == ("succeeded", True, 0.0)


def test_whoever_asks_is_told_which_step_starts(tmp_path):
    changes = []
    log = StepLog(("ingest", "train"), tmp_path, changes.append)
    feed(log, "09:14:11.456 - INFO - Executing task 'ingest'", "09:14:12.456 - INFO - Executing task 'train'")
    assert [(step.name, step.state) for step in changes] == [("ingest", "running"), ("train", "running")]
