"""What SageMaker carries between S3 and a job's folders, with the rights of the job's role."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from app.errors import StockflowError


class JobFault(StockflowError):
    """A training job cannot go on; the message is its FailureReason."""


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def download(s3: Any, channels: Iterable[Mapping[str, Any]], mode: str, folders: Sequence[Path]) -> None:
    """Lay out the input channels in each host's folder of data. mode: of channels without one. Raises JobFault."""
    for channel in channels:
        source = channel["DataSource"].get("S3DataSource")
        if not source or source.get("S3DataType") != "S3Prefix" or channel.get("InputMode", mode) == "Pipe":
            raise JobFault(
                f"ClientError: channel {channel['ChannelName']} is no S3Prefix read as files,"
                " which is all that the embedded SageMaker can carry"
            )
        try:
            _download_channel(s3, source, [folder / channel["ChannelName"] for folder in folders])
        except (ClientError, BotoCoreError) as exc:
            raise JobFault(f"ClientError: Data download failed:{exc}") from exc


def upload(s3: Any, folder: Path, uri: str) -> None:
    """Pack a folder and put it there as ``.tar.gz``; nothing when it is empty. Raises JobFault."""
    if not any(folder.iterdir()):
        return
    archive = folder.with_name(f"{folder.name}.tar.gz")
    with tarfile.open(archive, "w:gz") as packed:
        for path in sorted(folder.iterdir()):
            packed.add(path, path.name)
    try:
        with archive.open("rb") as body:
            bucket, key = split_uri(uri)
            s3.upload_fileobj(body, bucket, key)
    except (ClientError, BotoCoreError) as exc:
        raise JobFault(f"ClientError: Artifact upload failed:{exc}") from exc


def _download_channel(s3: Any, source: Mapping[str, Any], folders: Sequence[Path]) -> None:
    """Every host gets all objects, or each its share of them."""
    bucket, prefix = split_uri(source["S3Uri"])
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    files = sorted(key for key in keys if not key.endswith("/"))
    sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
    first, *others = folders
    first.mkdir(parents=True)
    for other in others:
        if sharded:
            other.mkdir(parents=True)
        else:
            other.symlink_to(first)
    for number, key in enumerate(files):
        folder = folders[number % len(folders)] if sharded else first
        target = (folder / _name(key, prefix)).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise JobFault(f"ClientError: Data download failed:s3://{bucket}/{key} leads out of its channel")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(s3.get_object(Bucket=bucket, Key=key)["Body"], file)


def _name(key: str, prefix: str) -> str:
    """Place of an object in its channel: what is below the prefix, or the last part of what only begins with it."""
    below = key.removeprefix(prefix)
    if prefix.endswith("/") or not prefix:
        return below
    return below.lstrip("/") if below.startswith("/") else key[prefix.rfind("/") + 1 :]
