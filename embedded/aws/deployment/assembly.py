"""A cloud assembly, the folder that `cdk synth` writes: its stacks, and the files and images that they are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from app.errors import StockflowError
from embedded.aws.account import ACCOUNT, PARTITION, REGION

_PLACEHOLDERS = {
    "${AWS::AccountId}": ACCOUNT,
    "${AWS::Region}": REGION,
    "${AWS::Partition}": PARTITION,
    "${AWS::URLSuffix}": "amazonaws.com",
}
_STACK = "aws:cloudformation:stack"
_ASSETS = "cdk:asset-manifest"
_NOTHING_TO_DEPLOY = frozenset({"cdk:tree", "cdk:feature-flag-report"})


class BadAssembly(StockflowError):
    """A folder is no cloud assembly, or has in it what cannot be deployed here."""

    exit_code = 10


@dataclass(frozen=True)
class FileAsset:
    """A file, or a folder that goes up as a ZIP archive, and where it goes."""

    path: Path
    zipped: bool
    bucket: str
    key: str


@dataclass(frozen=True)
class ImageAsset:
    """A container image. context: the folder that it is built from; dockerfile: the recipe's path in there."""

    repository: str
    tag: str
    context: Path
    dockerfile: str

    @property
    def uri(self) -> str:
        """The image's name as a template has it."""
        return f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{self.repository}:{self.tag}"


@dataclass(frozen=True)
class Stack:
    """One stack. version_parameter: the SSM parameter by which it knows the account as bootstrapped."""

    name: str
    file: Path
    parameters: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    version_parameter: str | None = None
    version: int = 0

    @cached_property
    def body(self) -> str:
        """The template as it was written."""
        return self.file.read_text(encoding="utf-8")

    @cached_property
    def template(self) -> Mapping[str, Any]:
        """The template."""
        template: Mapping[str, Any] = json.loads(self.body)
        return template


@dataclass(frozen=True)
class Assembly:
    """stacks: each after those that it depends on."""

    folder: Path
    stacks: tuple[Stack, ...]
    files: tuple[FileAsset, ...]
    images: tuple[ImageAsset, ...]

    @classmethod
    def load(cls, folder: Path) -> Assembly:
        """Read a folder; BadAssembly says what it lacks."""
        artifacts: dict[str, dict[str, Any]] = _read(folder / "manifest.json").get("artifacts", {})
        for name, artifact in artifacts.items():
            if artifact["type"] not in {_STACK, _ASSETS, *_NOTHING_TO_DEPLOY}:
                raise BadAssembly(f"{folder}: {name} is a {artifact['type']}, which cannot be deployed here")
        manifests = [_read(folder / _properties(found)["file"]) for found in artifacts.values() if _is(found, _ASSETS)]
        files = {asset: None for manifest in manifests for asset in _files(folder, manifest)}
        images = {asset: None for manifest in manifests for asset in _images(folder, manifest)}
        return cls(folder, tuple(_stacks(folder, artifacts)), tuple(files), tuple(images))

    def stack(self, name: str) -> Stack:
        """The stack of this name; BadAssembly when there is none."""
        for stack in self.stacks:
            if stack.name == name:
                return stack
        known = ", ".join(stack.name for stack in self.stacks)
        raise BadAssembly(f"{self.folder} has no stack {name}: it has {known}")


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise BadAssembly(f"{file} does not exist: write the folder with `cdk synth`") from exc
    except ValueError as exc:
        raise BadAssembly(f"{file} is not JSON ({exc}): write the folder again with `cdk synth`") from exc
    return content


def _is(artifact: Mapping[str, Any], kind: str) -> bool:
    return bool(artifact["type"] == kind)


def _properties(artifact: Mapping[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = artifact.get("properties", {})
    return properties


def _stacks(folder: Path, artifacts: Mapping[str, dict[str, Any]]) -> Iterator[Stack]:
    before = {name: artifact.get("dependencies", ()) for name, artifact in artifacts.items()}
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as exc:
        raise BadAssembly(f"{folder}: stacks depend on each other in a circle: {' -> '.join(exc.args[1])}") from exc
    for name in order:
        if name in artifacts and _is(artifacts[name], _STACK):
            said = _properties(artifacts[name])
            yield Stack(
                name=said.get("stackName", name),
                file=folder / said["templateFile"],
                parameters=said.get("parameters", {}),
                tags=said.get("tags", {}),
                version_parameter=said.get("bootstrapStackVersionSsmParameter"),
                version=said.get("requiresBootstrapStackVersion", 0),
            )


def _files(folder: Path, manifest: Mapping[str, Any]) -> Iterator[FileAsset]:
    for name, asset in manifest.get("files", {}).items():
        source = asset["source"]
        if "path" not in source:
            raise BadAssembly(f"{folder}: asset {name} is made by a program of its own, which is not run here")
        for place in asset["destinations"].values():
            yield FileAsset(
                path=folder / source["path"],
                zipped=source.get("packaging") == "zip",
                bucket=_here(place["bucketName"]),
                key=_here(place["objectKey"]),
            )


def _images(folder: Path, manifest: Mapping[str, Any]) -> Iterator[ImageAsset]:
    for name, asset in manifest.get("dockerImages", {}).items():
        source = asset["source"]
        if "directory" not in source:
            raise BadAssembly(f"{folder}: image {name} is made by a program of its own, which is not run here")
        for place in asset["destinations"].values():
            yield ImageAsset(
                repository=_here(place["repositoryName"]),
                tag=_here(place["imageTag"]),
                context=folder / source["directory"],
                dockerfile=source.get("dockerFile", "Dockerfile"),
            )


def _here(text: str) -> str:
    """The text with the account and the region of the embedded AWS in the places left for them."""
    for placeholder, value in _PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    return text
