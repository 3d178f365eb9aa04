"""The tests' own instruments: a search that finds nothing must be one that would have found it."""

import os

from harness import GiB, MARKER, MiB, parse_metrics, payload, scan, tree


def test_the_search_finds_a_needle_in_a_sparse_file(tmp_path):
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.truncate(4 * GiB)
        os.pwrite(file.fileno(), MARKER, 3 * GiB + 4090)  # over a page's end
        os.pwrite(file.fileno(), b"x" * MiB, 17)
    assert scan(path, {"marker": MARKER, "absent": b"absent"}) == [("marker", 3 * GiB + 4090)]
    with open(path, "r+b") as file:
        os.pwrite(file.fileno(), bytes(len(MARKER)), 3 * GiB + 4090)
    assert scan(path, {"marker": MARKER}) == []


def test_payloads_are_marked_and_reproducible():
    assert payload(100_000, 3) == payload(100_000, 3) != payload(100_000, 4)
    assert payload(100, 1).count(MARKER) == 1
    assert payload(100_000).count(MARKER) > 150
    assert payload(10 * MiB).count(MARKER) > 100
    assert len(payload(5)) == 5


def test_a_changed_file_shows_in_the_tree(tmp_path):
    (tmp_path / "a").write_text("1")
    before = tree(tmp_path)
    (tmp_path / "a").write_text("2")
    assert tree(tmp_path) != before
    (tmp_path / "a").write_text("1")
    assert tree(tmp_path) == before
    (tmp_path / "a").chmod(0o777)
    assert tree(tmp_path) != before


def test_metrics_are_read_with_their_labels():
    text = '# HELP a b\n# TYPE a counter\na{x="1",y="q\\"r"} 3\na{x="2"} 4\nb 1e3\n'
    assert list(parse_metrics(text)) == [("a", {"x": "1", "y": 'q\\"r'}, 3.0), ("a", {"x": "2"}, 4.0), ("b", {}, 1000.0)]
