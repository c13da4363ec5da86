"""Any DVC remote is read by hash without git, and what is wrong with one is a line with the mend."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import InputError, Unavailable, WorkError
from assay.storage.dataset_fetch import missing_in_remote
from assay.storage.dvc_remote import DamagedListing, parse_listing
from tests.support.node import FILES, Node, Web, content, md5


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ("", r"has no default DVC remote for nodes to fetch data from: run `dvc remote add -d NAME s3://…`"),
        ("[core]\nremote = team\n", r"the default DVC remote 'team' has no url: run `dvc remote add team s3://…`"),
        (
            "[core]\nremote=t\n['remote \"t\"']\nurl=../t\n",
            r"'t' is a relative path, .*run `dvc remote modify t url s3",
        ),
        ("[core]\nremote=t\n['remote \"t\"']\nurl=gs://a/b\n", r"'t': .*requires 'dvc-gs' to be installed"),
        ("[core]\nremote=t\n['remote \"t\"']\nurl=/t\nworktree=true\n", r"'t' is cloud-versioned"),
        ("[core]\nremote=t\n['remote \"t\"']\nurl=/t\nfoo=1\n", r"^\.dvc/config: extra keys not allowed"),
        ("[core", r"^\.dvc/config: "),
    ],
)
def test_remotes_that_nodes_cannot_use(node: Node, config: str, line: str) -> None:
    version = node.publish(FILES)
    (node.root / ".dvc" / "config").write_text(config)
    for look in (lambda: node.fetch(version), lambda: missing_in_remote(node.root, "pets")):
        with pytest.raises(InputError, match=line) as caught:
            look()
        assert "\n" not in str(caught.value)


def test_what_only_this_machine_knows_does_not_reach_a_cluster(node: Node) -> None:
    version = node.publish(FILES)
    (node.root / ".dvc" / "config").rename(node.root / ".dvc" / "config.local")
    assert content(node.fetch(version)) == FILES
    with pytest.raises(InputError, match=r"not set in \.dvc/config, .*without --local or --global"):
        missing_in_remote(node.root, "pets")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
entries = st.fixed_dictionaries(
    {"md5": st.text("0123456789abcdef", min_size=31, max_size=33), "relpath": st.text("a./\\\0é", max_size=6)}
)


@given(
    st.binary()
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.lists(entries).map(lambda it: json.dumps(it).encode())
)
def test_a_listing_leads_nowhere_else(data: bytes) -> None:
    try:
        files = parse_listing(data, "v")
    except DamagedListing:
        return
    for path, found in files.items():
        target = Path("/cache/v", path)
        assert target.resolve().is_relative_to("/cache/v")
        assert target.resolve() != Path("/cache/v")
        assert len(found) == 32


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x", "", ".", "a\0"])
def test_a_listing_that_leads_elsewhere_is_damaged(path: str) -> None:
    listing = json.dumps([{"md5": md5(b""), "relpath": "a"}, {"md5": md5(b""), "relpath": path}])
    with pytest.raises(DamagedListing, match="which is not a file of a dataset"):
        parse_listing(listing.encode(), "v")


def test_a_web_server_without_ranges_will_do(node: Node, web: Web) -> None:
    large = {"a": bytes(12_000_000)}
    assert content(node.fetch(node.publish(large))) == large


def test_a_listing_keeps_its_files(node: Node) -> None:
    version = node.publish(FILES)
    assert parse_listing(node.object(version).read_bytes(), version) == {
        path: md5(data) for path, data in FILES.items()
    }


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_not_tried_again_and_tells_no_password(node: Node, web: Web, status: int) -> None:
    version = node.publish(FILES)
    web.status = status
    node.configure(web.url.replace("://", "://team:hunter22@"))
    line = rf"'team' \(http://127\.0\.0\.1:\d+\) refuses the credentials \(ClientResponseError: {status}"
    for look in (lambda: node.fetch(version), lambda: missing_in_remote(node.root, "pets")):
        with pytest.raises(WorkError, match=line) as caught:
            look()
        assert not isinstance(caught.value, Unavailable)
        assert "hunter22" not in "".join(traceback.format_exception(caught.value))
