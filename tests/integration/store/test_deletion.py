"""An object that changed after it was listed is not deleted."""

import time
from urllib.parse import parse_qs, urlsplit

import pytest

from modelyard.components.store.objects import Entry
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects
from tests.http_server import Handler, serve


@pytest.mark.parametrize("settings", ["folder", "shelf"], indirect=True)
@pytest.mark.parametrize("change", ["touched", "written", "recreated"])
def test_an_object_that_changed_after_the_listing_is_not_deleted(objects, change, tmp_path):
    objects.create("uploads/one", b"first")
    (listed,) = objects.entries("uploads/")
    time.sleep(0.01)
    (tmp_path / "second").write_bytes(b"second")
    if change == "touched":
        objects.touch("uploads/one")
    else:
        if change == "recreated":
            objects.delete(listed)
        objects.upload("uploads/one", tmp_path / "second")
    assert not objects.delete(listed)
    assert objects.read("uploads/one")[0] == (b"first" if change == "touched" else b"second")


def test_a_deletion_in_a_bucket_has_a_generation_precondition():
    """The fake-gcs-server ignores these preconditions; Cloud Storage returns 412."""
    queries = []

    class Bucket(Handler):
        def handle_request(self):
            queries.append(parse_qs(urlsplit(self.path).query))
            self.respond(412)

    with serve(Bucket) as url:
        bucket = open_objects(Store(url="gs://models", endpoint=url))
        assert not bucket.delete(Entry(key="a", size=1, mtime=0.0, generation="7", revision="3"))
    (query,) = queries
    assert query["ifGenerationMatch"] == ["7"]
    assert query["ifMetagenerationMatch"] == ["3"]
