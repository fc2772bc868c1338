import os

from modelyard.components import lifeline
from modelyard.pipelines.runners import runs


def test_a_run_has_scratch_and_lifeline_while_it_lives(tmp_path):
    with runs.start(tmp_path) as run:
        assert os.environ["TMPDIR"] == str(run / "scratch")
        assert os.environ["MODELYARD_LIFELINE"] == str(run / "lifeline")
    assert "MODELYARD_LIFELINE" not in os.environ
    assert not (run / "scratch").exists()


def test_what_a_killed_run_left_half_written_is_cleared_by_the_next(tmp_path):
    dead = tmp_path / "runs" / "20200101-000000-dead"
    (dead / "scratch" / "x").mkdir(parents=True)
    (dead / "artifacts" / "p" / "ingest" / "raw.partial").mkdir(parents=True)
    (dead / "artifacts" / "p" / "ingest" / "whole").mkdir(parents=True)
    with runs.start(tmp_path) as living:
        (living / "artifacts" / "raw.partial").mkdir()
        with runs.start(tmp_path):
            assert (living / "artifacts" / "raw.partial").exists()
    assert not (dead / "scratch").exists()
    assert [path.name for path in (dead / "artifacts" / "p" / "ingest").iterdir()] == ["whole"]


def test_a_starting_run_is_never_taken_for_a_dead_one(tmp_path, monkeypatch):
    seen = []
    hold = lifeline.hold

    def watched(path):
        seen.append(runs._dead(tmp_path))
        return hold(path)

    monkeypatch.setattr(lifeline, "hold", watched)
    with runs.start(tmp_path) as run:
        assert (run / "scratch").is_dir()
    assert seen == [[]]
