"""What a deployment needs in the account first: what `cdk bootstrap` makes, and the assets."""

from __future__ import annotations

import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from boto3.s3.transfer import TransferConfig

from embedded.aws.deployment.assembly import Assembly, FileAsset
from embedded.aws.deployment.resources import Api
from embedded.aws.host import Host

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a ZIP archive can hold."""
_IN_PARTS = TransferConfig(multipart_threshold=16 << 20, multipart_chunksize=16 << 20, max_concurrency=2)


def bootstrap(assembly: Assembly, api: Api) -> None:
    """Make buckets, repositories and the parameter that tells the version, as `cdk bootstrap` does."""
    for bucket in dict.fromkeys(asset.bucket for asset in assembly.files):
        api.client("s3").create_bucket(Bucket=bucket)
    for repository in dict.fromkeys(image.repository for image in assembly.images):
        api.client("ecr").create_repository(repositoryName=repository)
    versions: dict[str, int] = {}
    for stack in assembly.stacks:
        if stack.version_parameter is not None:
            versions[stack.version_parameter] = max(versions.get(stack.version_parameter, 0), stack.version)
    for name, version in versions.items():
        api.client("ssm").put_parameter(Name=name, Value=str(version), Type="String", Overwrite=True)


def publish(assembly: Assembly, host: Host, api: Api) -> None:
    """Upload the files, and make the images known to the host."""
    for asset in assembly.files:
        with _opened(asset) as body:
            api.client("s3").upload_fileobj(body, asset.bucket, asset.key, Config=_IN_PARTS)
    for image in assembly.images:
        host.images.publish(image.uri, image.context / image.dockerfile, image.context)


@contextmanager
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
