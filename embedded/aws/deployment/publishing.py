"""What a deployment needs in the account first: what `cdk bootstrap` makes, and the assets."""

from __future__ import annotations

import contextlib
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from botocore.exceptions import ClientError

from embedded.aws.deployment.assembly import Assembly, FileAsset
from embedded.aws.deployment.resources import Api
from embedded.aws.host import Host

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a ZIP archive can hold."""


def bootstrap(assembly: Assembly, api: Api) -> None:
    """Make buckets, repositories and the parameter that tells the version, as `cdk bootstrap` does; again is fine."""
    for bucket in dict.fromkeys(asset.bucket for asset in assembly.files):
        api.client("s3").create_bucket(Bucket=bucket)
    for repository in dict.fromkeys(image.repository for image in assembly.images):
        with contextlib.suppress(api.client("ecr").exceptions.RepositoryAlreadyExistsException):
            api.client("ecr").create_repository(repositoryName=repository)
    versions: dict[str, int] = {}
    for stack in assembly.stacks:
        if stack.version_parameter is not None:
            versions[stack.version_parameter] = max(versions.get(stack.version_parameter, 0), stack.version)
    for name, version in versions.items():
        api.client("ssm").put_parameter(Name=name, Value=str(version), Type="String", Overwrite=True)


def publish_files(assembly: Assembly, api: Api) -> None:
    """Upload the files that are not there yet: their keys say what is in them.

    Each is streamed in one piece, however large: of parts moto would hold several copies to put them together.
    """
    s3 = api.client("s3")
    for asset in assembly.files:
        if not _is_there(s3, asset):
            with _opened(asset) as body:
                s3.put_object(Bucket=asset.bucket, Key=asset.key, Body=body)


def publish_images(assembly: Assembly, host: Host) -> None:
    """Make the images known to the host; it keeps them as long as it lives."""
    for image in assembly.images:
        host.images.publish(image.uri, image.context / image.dockerfile, image.context)


def _is_there(s3: Any, asset: FileAsset) -> bool:
    try:
        s3.head_object(Bucket=asset.bucket, Key=asset.key)
    except ClientError as exc:
        if exc.response["Error"]["Code"] != "404":
            raise
        return False
    return True


@contextlib.contextmanager
def _opened(asset: FileAsset) -> Iterator[IO[bytes]]:
    if not asset.zipped:
        with asset.path.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as archive:
        write_zip(asset.path, archive)
        archive.seek(0)
        yield archive


def write_zip(folder: Path, archive: IO[bytes]) -> None:
    """Pack a folder, the same bytes for the same content: files by name, with their modes, without their times."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(found for found in folder.rglob("*") if found.is_file()):
            about = zipfile.ZipInfo(file.relative_to(folder).as_posix(), _EPOCH)
            about.compress_type = zipfile.ZIP_DEFLATED
            about.external_attr = (stat.S_IFREG | stat.S_IMODE(file.stat().st_mode)) << 16
            with file.open("rb") as source, packed.open(about, "w") as target:
                while block := source.read(1 << 20):
                    target.write(block)
