"""An object that changed after it was listed is not deleted."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from modelyard.components.store.objects import Entry
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects


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

    class Changed(BaseHTTPRequestHandler):
        def do_DELETE(self):
            queries.append(parse_qs(urlsplit(self.path).query))
            self.send_response(412)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Changed) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        bucket = open_objects(Store(url="gs://models", endpoint=f"http://127.0.0.1:{server.server_port}"))
        assert not bucket.delete(Entry(key="a", size=1, changed=0.0, generation="7", revision="3"))
        server.shutdown()
    (query,) = queries
    assert query["ifGenerationMatch"] == ["7"]
    assert query["ifMetagenerationMatch"] == ["3"]
