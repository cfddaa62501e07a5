"""Reading what `cdk synth` writes, and packing it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from embedded.aws.deployment.assembly import Assembly, BadAssembly
from embedded.aws.deployment.publishing import write_zip

_PLACE = {
    "bucketName": "assets-${AWS::AccountId}-${AWS::Region}",
    "objectKey": "abc.zip",
    "assumeRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/publisher",
}
_REPOSITORY = {"repositoryName": "images-${AWS::AccountId}-${AWS::Region}", "imageTag": "def"}


def _stack(name: str, *after: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "aws:cloudformation:stack",
        "dependencies": list(after),
        "properties": {"templateFile": f"{name}.template.json", **properties},
    }


def _write(folder: Path, artifacts: Mapping[str, Any], assets: Mapping[str, Any] | None = None) -> Path:
    (folder / "manifest.json").write_text(json.dumps({"version": "55.0.0", "artifacts": artifacts}))
    (folder / "one.assets.json").write_text(json.dumps(assets or {}))
    return folder


def _assets(file: str = "one.assets.json") -> dict[str, Any]:
    return {"type": "cdk:asset-manifest", "properties": {"file": file}}


def test_stacks_come_after_those_that_they_depend_on(tmp_path: Path) -> None:
    artifacts = {"a": _stack("a", "c", "a.assets"), "b": _stack("b"), "c": _stack("c", "b"), "a.assets": _assets()}
    assert [stack.name for stack in Assembly.load(_write(tmp_path, artifacts)).stacks] == ["b", "c", "a"]


def test_a_stack_says_its_name_its_tags_and_what_it_needs_of_the_account(tmp_path: Path) -> None:
    said = {"bootstrapStackVersionSsmParameter": "/cdk/version", "requiresBootstrapStackVersion": 6}
    written = _stack("a", stackName="other", tags={"team": "x"}, parameters={"P": "1"}, **said)
    (tmp_path / "a.template.json").write_text('{"Resources": {}}')
    (stack,) = Assembly.load(_write(tmp_path, {"a": written})).stacks
    assert (stack.name, stack.tags, stack.parameters) == ("other", {"team": "x"}, {"P": "1"})
    assert (stack.version_parameter, stack.version) == ("/cdk/version", 6)
    assert stack.template == {"Resources": {}}


def test_a_file_goes_to_the_bucket_of_this_account_and_region(tmp_path: Path) -> None:
    sources = {"abc": {"path": "asset.abc", "packaging": "zip"}, "def": {"path": "one.py", "packaging": "file"}}
    files = {name: {"source": source, "destinations": {"here": _PLACE}} for name, source in sources.items()}
    folder, file = Assembly.load(_write(tmp_path, {"one.assets": _assets()}, {"files": files})).files
    assert (folder.bucket, folder.key) == ("assets-123456789012-us-east-1", "abc.zip")
    assert (folder.path, folder.zipped) == (tmp_path / "asset.abc", True)
    assert (file.path, file.zipped) == (tmp_path / "one.py", False)


def test_an_image_has_the_name_that_templates_give_it(tmp_path: Path) -> None:
    source = {"directory": "asset.def", "dockerFile": "docker/Dockerfile"}
    images = {"dockerImages": {"def": {"source": source, "destinations": {"here": _REPOSITORY}}}}
    (image,) = Assembly.load(_write(tmp_path, {"one.assets": _assets()}, images)).images
    assert image.uri == "123456789012.dkr.ecr.us-east-1.amazonaws.com/images-123456789012-us-east-1:def"
    assert image.context / image.dockerfile == tmp_path / "asset.def" / "docker" / "Dockerfile"


def test_what_two_stacks_share_is_published_once(tmp_path: Path) -> None:
    files = {"files": {"abc": {"source": {"path": "x", "packaging": "zip"}, "destinations": {"here": _PLACE}}}}
    (tmp_path / "two.assets.json").write_text(json.dumps(files))
    artifacts = {"one.assets": _assets(), "two.assets": _assets("two.assets.json")}
    assert len(Assembly.load(_write(tmp_path, artifacts, files)).files) == 1


@pytest.mark.parametrize(
    ("artifacts", "reason"),
    [
        ({"stage": {"type": "cdk:cloud-assembly"}}, "stage is a cdk:cloud-assembly"),
        ({"a": _stack("a", "b"), "b": _stack("b", "a")}, "in a circle"),
        ({"lost.assets": _assets("lost.json")}, "lost.json does not exist"),
    ],
)
def test_what_cannot_be_deployed_is_refused(tmp_path: Path, artifacts: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(BadAssembly, match=reason):
        Assembly.load(_write(tmp_path, artifacts))


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadAssembly, match=r"manifest.json does not exist: write the folder with `cdk synth`"):
        Assembly.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BadAssembly, match="is not JSON"):
        Assembly.load(tmp_path)


def test_an_asset_made_by_a_program_is_refused(tmp_path: Path) -> None:
    files = {"files": {"abc": {"source": {"executable": ["make"]}, "destinations": {"here": _PLACE}}}}
    with pytest.raises(BadAssembly, match="abc is made by a program"):
        Assembly.load(_write(tmp_path, {"one.assets": _assets()}, files))


def test_a_folder_is_packed_to_the_same_bytes_whenever_it_was_written(tmp_path: Path) -> None:
    packed = []
    for name, order in (("first", ("b.py", "a.py")), ("second", ("a.py", "b.py"))):
        folder = tmp_path / name
        (folder / "deep").mkdir(parents=True)
        for file in order:
            (folder / "deep" / file).write_text(f"print('{file}')")
        (folder / "deep" / "a.py").chmod(0o755)
        archive = io.BytesIO()
        write_zip(folder, archive)
        packed.append(archive)
    assert packed[0].getvalue() == packed[1].getvalue()
    with zipfile.ZipFile(packed[0]) as content:
        assert content.namelist() == ["deep/a.py", "deep/b.py"]
        assert content.read("deep/b.py") == b"print('b.py')"
        assert [about.external_attr >> 16 & 0o777 for about in content.infolist()] == [0o755, 0o644]
