"""Of links only those of a hub cache are followed, and only to blobs of their own repository."""

import os
import shutil

import pytest
from tests.helpers.saved_folders import defects, save_adapter, save_model

from saver_conformance.folder.hub_cache import blob_of
from saver_conformance.folder_check.audit import audit


def to_snapshot(folder, cache):
    """Lay ``folder`` out as huggingface_hub does in its cache."""
    repository = cache / "models--org--name"
    snapshot = repository / "snapshots" / ("0" * 40)
    (repository / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        name = path.relative_to(folder)
        shutil.copy(path, repository / "blobs" / f"blob{number}")
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (1 + len(name.parts))
        (snapshot / name).symlink_to(f"{up}blobs/blob{number}")
    return snapshot


@pytest.fixture
def snapshot(tmp_path):
    save_model(tmp_path / "model", max_shard_size="20KB")
    return to_snapshot(tmp_path / "model", tmp_path / "hub")


def test_check_of_a_snapshot_finds_no_defect_and_reads_the_blobs(snapshot):
    assert defects(snapshot) == set()
    found = audit(snapshot, read_bytes=True)
    assert found.layouts == ("sharded",)
    assert len(found.digests) > 1
    shard = snapshot / next(iter(found.digests))
    blob = blob_of(shard)
    assert blob == shard.resolve()
    blob.write_bytes(blob.read_bytes()[:-1])
    assert "FORMAT-002" in defects(snapshot)


def test_check_of_a_snapshot_of_named_adapters_finds_no_defect(tmp_path):
    save_adapter(tmp_path / "adapters" / "style")
    save_adapter(tmp_path / "adapters" / "tone", "dora")
    snapshot = to_snapshot(tmp_path / "adapters", tmp_path / "hub")
    assert defects(snapshot) == set()
    assert audit(snapshot).layouts == ("adapter",)


def test_blob_of_an_absolute_link_is_followed(snapshot):
    path = snapshot / "config.json"
    blob = path.resolve()
    path.unlink()
    path.symlink_to(blob)
    assert blob_of(path) == blob


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "nowhere",
        "config.json",
        "../../refs",
        "../../blobs",
        "../../blobs/nowhere",
        "../../blobs/../secret",
        "../../blobs/inner/secret",
        "../../blobs/link",
        "../../blobs/pipe",
        "../../../models--org--other/blobs/secret",
    ],
)
def test_blob_of_any_other_link_is_none(snapshot, target):
    repository = snapshot.parents[1]
    (repository / "secret").write_text("{}")
    (repository / "blobs" / "inner").mkdir()
    (repository / "blobs" / "inner" / "secret").write_text("{}")
    (repository / "blobs" / "link").symlink_to("/etc/passwd")
    os.mkfifo(repository / "blobs" / "pipe")
    other = repository.with_name("models--org--other")
    (other / "blobs").mkdir(parents=True)
    (other / "blobs" / "secret").write_text("{}")
    path = snapshot / "config.json"
    path.unlink()
    path.symlink_to(target)
    assert blob_of(path) is None
    assert "FILES-011" in defects(snapshot)


def test_blob_of_a_folder_of_blobs_that_is_a_link_is_none(snapshot):
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(blobs.with_name("elsewhere"))
    blobs.symlink_to("elsewhere")
    assert blob_of(snapshot / "config.json") is None


def test_blob_of_a_link_outside_of_a_cache_is_none(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "blob").write_text("{}")
    (tmp_path / "model" / "revision").mkdir(parents=True)
    path = tmp_path / "model" / "revision" / "config.json"
    path.symlink_to("../../blobs/blob")
    assert blob_of(path) is None
    assert blob_of(tmp_path / "blobs" / "blob") is None
    assert blob_of(tmp_path / "nowhere") is None
