"""Self-signed certificates for the nodes of an EMR cluster, in the zip file that EMR's encryption in transit takes.

The names and the file's layout: "Providing certificates for encrypting data in transit with Amazon EMR encryption",
https://docs.aws.amazon.com/emr/latest/ManagementGuide/emr-encryption-enable.html

This file runs on any Python from 3.8 and needs only the standard library and openssl.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from shell import StepError, step

KEY, CHAIN, TRUSTED = "privateKey.pem", "certificateChain.pem", "trustedCertificates.pem"
DAYS = 730
LEFT_S = 30 * 24 * 3600
REGIONS = (
    *("af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1"),
    *("ap-south-2", "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5"),
    *("ap-southeast-6", "ap-southeast-7", "ca-central-1", "ca-west-1", "eu-central-1", "eu-central-2", "eu-north-1"),
    *("eu-south-1", "eu-south-2", "eu-west-1", "eu-west-2", "eu-west-3", "il-central-1", "me-central-1", "me-south-1"),
    *("mx-central-1", "sa-east-1", "us-east-2", "us-west-1", "us-west-2"),
)
NAMES = ("*.ec2.internal", *(f"*.{region}.compute.internal" for region in REGIONS))
"""Hosts of a VPC with Amazon's DNS: the first in us-east-1, the others elsewhere; `*` stands for one label only."""

REQUEST = f"""\
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = {NAMES[0]}
[extensions]
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyEncipherment, keyCertSign
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = {",".join(f"DNS:{name}" for name in NAMES)}
"""


def provide_certificates(out: Path) -> Path:
    """Make `out`/certificates.zip, unless it holds certificates for all NAMES for 30 days more; its path."""
    path = out / "certificates.zip"
    openssl = shutil.which("openssl")
    if openssl is None:
        raise StepError("openssl, which makes the cluster's certificates, is not on PATH: apt-get install openssl")
    if not are_good(openssl, path):
        with step(f"certificates for the cluster's nodes, for {DAYS} days", "emr"):
            make(openssl, path)
    return path


def are_good(openssl: str, path: Path) -> bool:
    """Whether the zip file holds a certificate for all NAMES that does not end soon."""
    try:
        with zipfile.ZipFile(path) as archive:
            certificate = {name: archive.read(name) for name in (CHAIN, TRUSTED, KEY)}[CHAIN]
    except (OSError, KeyError, zipfile.BadZipFile):
        return False
    question = [openssl, "x509", "-noout", "-checkend", str(LEFT_S), "-ext", "subjectAltName"]
    done = subprocess.run(question, input=certificate, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode == 0 and all(f"DNS:{name}".encode() in done.stdout for name in NAMES)


def make(openssl: str, path: Path) -> None:
    """Write a new key and its certificate into the zip file, which only its owner may read."""
    with tempfile.TemporaryDirectory(prefix=".certificates-", dir=path.parent) as name:
        folder = Path(name)
        (folder / "request.conf").write_text(REQUEST, encoding="utf-8")
        command = [openssl, "req", "-x509", "-config", "request.conf", "-newkey", "rsa:2048", "-nodes", "-sha256"]
        command += ["-days", str(DAYS), "-keyout", KEY, "-out", CHAIN]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            raise StepError(f"openssl made no certificate: {done.stdout.decode(errors='replace').strip()}")
        shutil.copyfile(folder / CHAIN, folder / TRUSTED)
        scratch = folder / path.name
        scratch.touch(0o600)
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as archive:
            for member in (KEY, CHAIN, TRUSTED):
                archive.write(folder / member, member)
        scratch.replace(path)
