"""A plain Debian 12 in a folder, and commands that run in it as they would in a container, without Docker.

Each command gets namespaces of its own for mounts and processes: the kernel takes its mounts away and ends what it
left running when it ends, however it ends.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from shell import StepError, output_of, run_logged, tail

SUITE = "bookworm"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CERTIFICATES = "etc/ssl/machine.crt"
CARRIED = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/uv/uv.toml")
CARRIED_HOME = (".config/pip/pip.conf", ".pip/pip.conf", ".config/uv/uv.toml")
CARRIED_ENVIRONMENT = re.compile(r"(https?|no)_proxy|(PIP|UV)_(\w*INDEX\w*|TRUSTED_HOST|PROXY|\w*TIMEOUT)", re.I)
IN_ROOT = (
    'mount --rbind /dev "$1/dev"; mount -t proc proc "$1/proc"; mount -t sysfs -o ro sysfs "$1/sys";'
    ' root=$1 user=$2; shift 2; exec chroot --userspec="$user" "$root" "$@"'
)


def why_not_here() -> str:
    """Why this machine cannot make and use such a root; "" when it can."""
    if os.geteuid() != 0:
        return "this needs root: type it with sudo"
    if not shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:{PATH}"):
        return "debootstrap is missing: apt-get install debootstrap"
    if output_of("unshare", "--mount", "--pid", "--fork", "true") is None:
        return "this machine allows no mounts (an unprivileged container?): try it on a machine or in a VM"
    return ""


def make_base(folder: Path, log: Path) -> None:
    """Make the root at `folder`, which appears only once it is complete. Raises StepError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.with_name(f"{folder.name}.{os.getpid()}")
    sources = list(machine_sources(Path("/etc/apt")))
    mirror = [uri for uri, suite in sources if suite == SUITE][:1]
    try:
        command = ["debootstrap", "--variant=minbase", SUITE, str(scratch), *mirror]
        run_logged(command, log, cwd=folder.parent, env={"PATH": PATH, **apt_proxies()})
        if sources:
            lines = (f"deb {uri} {suite} main\n" for uri, suite in sources)
            (scratch / "etc/apt/sources.list").write_text("".join(lines), encoding="utf-8")
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def machine_sources(apt: Path) -> Iterator[tuple[str, str]]:
    """Where this machine gets Debian 12 from, as (mirror, suite); nothing on another system."""
    for path in (apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))):
        text = path.read_text(encoding="utf-8") if path.suffix in (".list", ".sources") and path.is_file() else ""
        text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        yield from re.findall(rf"^deb\s+(?:\[.*?\]\s+)?(\S+)\s+({SUITE}\S*)\s.*\bmain\b", text, re.MULTILINE)
        for stanza in text.split("\n\n"):
            fields = dict(re.findall(r"^(\w+):\s*(.*?)\s*$", stanza, re.MULTILINE))
            if fields.get("Types", "").startswith("deb") and "main" in fields.get("Components", "").split():
                suites = [suite for suite in fields.get("Suites", "").split() if suite.startswith(SUITE)]
                yield from ((fields["URIs"].split()[0], suite) for suite in suites)


def apt_proxies() -> dict[str, str]:
    """The proxies that apt is set to use, as variables for debootstrap."""
    found = re.findall(r'Acquire::(https?)::Proxy "(http.*?)";', output_of("apt-config", "dump") or "")
    return {f"{scheme}_proxy": proxy for scheme, proxy in found}


def carry_machine(root: Path) -> None:
    """Put into `root` how this machine reaches names, mirrors and package indexes: a container has its host's too."""
    home = Path.home()
    pairs = [(Path(path), path) for path in CARRIED] + [(home / path, f"/root/{path}") for path in CARRIED_HOME]
    bundle = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    for source, target in (*pairs, (Path(bundle), f"/{CERTIFICATES}")):
        if source.is_file():
            place = root / target[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
    settings = output_of("apt-config", "dump", "Acquire")
    if settings:
        (root / "etc/apt/apt.conf.d/90machine").write_text(settings, encoding="utf-8")


def machine_environment(root: Path) -> dict[str, str]:
    """What commands that use the network need of this machine's environment."""
    found = {name: value for name, value in os.environ.items() if CARRIED_ENVIRONMENT.fullmatch(name)}
    if (root / CERTIFICATES).is_file():
        names = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
        found.update(dict.fromkeys(names, f"/{CERTIFICATES}"))
    return found


def run_in_root(
    root: Path, command: Sequence[str], log: Path, *, environment: Mapping[str, str], user: str = "0", folder: str = "/"
) -> None:
    """Run `command` in `root` with this environment only, as `user` (name or id, `:group` may follow), in `folder`.

    Raises StepError with the end of what it printed when it fails. The log shows the command, but not the environment:
    a proxy's address may hold a password.
    """
    ids, home = find_user(root, user)
    variables = {"PATH": PATH, "HOME": home, **machine_environment(root), **environment}
    env = ["/usr/bin/env", "-i", f"--chdir={folder}", *(f"{name}={value}" for name, value in variables.items())]
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", IN_ROOT, "sh", str(root), ids]
    with log.open("a", encoding="utf-8") as sink:
        print("$", *command, file=sink, flush=True)
        done = subprocess.run([*unshare, *env, *command], stdout=sink, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise StepError(f"status {done.returncode}. The last lines:\n{tail(log)}\nThe whole log: {log}")


def find_user(root: Path, user: str) -> tuple[str, str]:
    """(uid:gid, home folder) of a USER instruction's `user`, after the passwd and group files of `root`."""
    name, _, group = user.partition(":")
    home, gid = "/", "0"
    for line in (root / "etc/passwd").read_text(encoding="utf-8").splitlines():
        fields = line.split(":")
        if name in (fields[0], fields[2]):
            name, gid, home = fields[2], fields[3], fields[5]
            break
    for line in (root / "etc/group").read_text(encoding="utf-8").splitlines():
        if group == line.split(":")[0]:
            group = line.split(":")[2]
    return f"{name}:{group or gid}", home
