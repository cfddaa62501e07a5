"""spark-submit's words for a YARN cluster, put into words for one machine.

The driver becomes a local process that is its only executor too (`--master local[cores]`). What only a cluster
manager understands is left out, by the one table below; what the program itself is told stays as it is, but for the
cluster's own file system, which is a folder here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_HEAP_MIB: Final = 1024
"""Most of a driver's heap: beside it live the JVM's own memory and a Python worker for each core."""
_YARN_ATTEMPTS: Final = 2
"""YARN's default of yarn.resourcemanager.am.max-attempts, which holds where spark.yarn.maxAppAttempts says nothing."""

_LEFT_OUT: Final = (
    (r"spark\.master|spark\.submit\.deployMode", "the driver is a process of this machine, on its cores"),
    (r"spark\.archives|spark\.yarn\.dist\.archives", "this interpreter has installed what an archive brings"),
    (r"spark\.pyspark\.(driver\.)?python", "the interpreter is this one"),
    (r"spark\.executorEnv\.PYSPARK_(DRIVER_)?PYTHON", "the interpreter is this one"),
    (r"spark\.yarn\.appMasterEnv\.PYSPARK_(DRIVER_)?PYTHON", "the interpreter is this one"),
    (r"spark\.yarn\..*", "there is no YARN"),
    (r"spark\.executor\.(instances|cores|memory\w*)", "the driver's process is the only executor"),
    (r"spark\.(dynamicAllocation|shuffle\.service)\..*", "the driver's process is the only executor"),
    (r"spark\.driver\.(cores|memoryOverhead\w*)", "the driver has no container of a given size"),
    (r"spark\.kerberos\..*", "there is no Kerberos"),
)
"""Settings that are not handed to Spark, and why."""

_CONF_OF: Final = {
    "--archives": "spark.archives",
    "--deploy-mode": "spark.submit.deployMode",
    "--driver-cores": "spark.driver.cores",
    "--driver-java-options": "spark.driver.extraJavaOptions",
    "--driver-memory": "spark.driver.memory",
    "--executor-cores": "spark.executor.cores",
    "--executor-memory": "spark.executor.memory",
    "--files": "spark.files",
    "--jars": "spark.jars",
    "--keytab": "spark.kerberos.keytab",
    "--master": "spark.master",
    "--num-executors": "spark.executor.instances",
    "--principal": "spark.kerberos.principal",
    "--py-files": "spark.submit.pyFiles",
    "--queue": "spark.yarn.queue",
}
"""Options that are another spelling of a setting, and win over it."""
_VALUED: Final = frozenset(
    f"--{name}"
    for name in (
        *("class", "driver-class-path", "driver-library-path", "exclude-packages", "kill", "name", "packages"),
        *("properties-file", "proxy-user", "remote", "repositories", "status", "total-executor-cores"),
    )
)
"""Options with a value that Spark takes as they are."""
_LISTS: Final = frozenset({"spark.files", "spark.jars", "spark.submit.pyFiles"})
_ATTEMPTS: Final = "spark.yarn.maxAppAttempts"
_APP_MASTER: Final = re.compile(r"spark\.yarn\.appMasterEnv\.(?!PYSPARK_(?:DRIVER_)?PYTHON$)(.+)")
"""Variables of the driver, in cluster mode; which interpreter it runs in is not among them here."""
_HDFS: Final = re.compile(r"(?<![\w+.-])hdfs:(//[^/\s,]*)?/")
_S3: Final = re.compile(r"s3[an]?://[^/]+/.+")
_SIZE: Final = re.compile(r"(\d+)(?:([kmgt])b?)?", re.IGNORECASE)
_MIB_BY_UNIT: Final = {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1024**2}


@dataclass(frozen=True)
class Desk:
    """Where a driver works. folder: its own, as a YARN container's; hdfs: stands for the cluster's file system."""

    spark_home: Path
    python: str
    cores: int
    folder: Path
    hdfs: Path

    @property
    def scratch(self) -> Path:
        """Folder for temporary files."""
        return self.folder / "tmp"


@dataclass(frozen=True)
class Submission:
    """What is run. argv: with spark-submit itself; environ: variables beside the machine's.

    fetched: S3 URLs and the files they become before the start; checked: S3 URLs that must be readable though
    nothing of them is used; left_out: settings not handed on, with the reason; attempts: drivers that are started
    when one after the other fails; clustered: whether the cluster would have run the driver (`--deploy-mode cluster`).
    """

    argv: tuple[str, ...]
    environ: Mapping[str, str]
    fetched: Mapping[str, Path]
    checked: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    attempts: int
    clustered: bool


def on_this_machine(words: Sequence[str], hdfs: Path) -> list[str]:
    """The words, with URLs of the cluster's own file system as URLs of a folder."""
    return [_HDFS.sub(lambda _: f"file://{hdfs}/", word) for word in words]


def translate(words: Sequence[str], desk: Desk) -> Submission:
    """spark-submit's words, without `spark-submit` itself, for a driver at this desk."""
    asked = _read(on_this_machine(words, desk.hdfs))
    clustered = asked.settings.get("spark.submit.deployMode") == "cluster"
    variables: dict[str, str] = {}
    attempts = 1
    if clustered:
        attempts = int(asked.settings.pop(_ATTEMPTS, _YARN_ATTEMPTS))
        variables = _taken(asked.settings, _APP_MASTER)
    checked = _archives(asked.settings)
    left_out = [(f"{name}={asked.settings.pop(name)}", reason) for name, reason in _reasons(asked.settings)]
    fetched: dict[str, Path] = {}
    for name in sorted(_LISTS & asked.settings.keys()):
        urls = asked.settings[name].split(",")
        asked.settings[name] = ",".join(_fetch(url, desk.folder, fetched) for url in urls)
    program = [_fetch(word, desk.folder, fetched) for word in asked.program[:1]]
    return Submission(
        argv=(
            str(desk.spark_home / "bin" / "spark-submit"),
            *("--master", f"local[{desk.cores}]"),
            *(word for pair in _settings(asked.settings, desk).items() for word in ("--conf", "=".join(pair))),
            *asked.options,
            *program,
            *asked.program[1:],
        ),
        environ={**_environ(desk), **variables},
        fetched=fetched,
        checked=checked,
        left_out=tuple(left_out),
        attempts=max(1, attempts),
        clustered=clustered,
    )


@dataclass
class _Asked:
    """settings: by Spark's name, an option's value under the setting it spells; options: all others, as words."""

    settings: dict[str, str] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    program: list[str] = field(default_factory=list)


def _read(words: Sequence[str]) -> _Asked:
    confs: dict[str, str] = {}
    asked = _Asked()
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        valued = option in _CONF_OF or option in _VALUED or option in {"--conf", "-c"}
        if valued and not equals and rest:
            value = rest.pop(0)
        if option in {"--conf", "-c"}:
            name, _, text = value.partition("=")
            confs[name.strip()] = text
        elif option in _CONF_OF:
            asked.settings[_CONF_OF[option]] = value
        else:
            asked.options += [option, value] if valued else [word]
    asked.settings = {**confs, **asked.settings}
    asked.program = rest
    return asked


def _taken(settings: dict[str, str], pattern: re.Pattern[str]) -> dict[str, str]:
    """Take the settings whose names match, under the part of the name that is the pattern's group."""
    found = [match for match in map(pattern.fullmatch, settings) if match]
    return {match[1]: settings.pop(match[0]) for match in found}


def _reasons(settings: Mapping[str, str]) -> list[tuple[str, str]]:
    """The settings that are left out, each with the reason."""
    why = {n: next((reason for pattern, reason in _LEFT_OUT if re.fullmatch(pattern, n)), None) for n in settings}
    return [(name, reason) for name, reason in why.items() if reason]


def _settings(asked: Mapping[str, str], desk: Desk) -> dict[str, str]:
    """All settings of the driver: those asked for, and around them what is to be so on this machine."""
    java = f'"-Djava.io.tmpdir={desk.scratch}" "-Dderby.system.home={desk.folder}"'
    return {
        "spark.sql.warehouse.dir": f"file://{desk.folder}/warehouse",
        **asked,
        "spark.driver.extraJavaOptions": f"{java} {asked.get('spark.driver.extraJavaOptions', '')}".strip(),
        "spark.driver.memory": _heap(asked.get("spark.driver.memory", "1g")),
        "spark.pyspark.python": desk.python,
        "spark.ui.enabled": "false",  # it would listen on a port
        "spark.ui.showConsoleProgress": "false",
    }


def _heap(asked: str) -> str:
    """A size of memory, at most what a driver gets here; a malformed one is left for Spark to complain about."""
    size = _SIZE.fullmatch(asked.strip())
    if size is None:
        return asked
    mib = int(size[1]) * _MIB_BY_UNIT[(size[2] or "m").lower()]
    return asked if mib <= _HEAP_MIB else f"{_HEAP_MIB}m"


def _environ(desk: Desk) -> dict[str, str]:
    """Variables that keep Spark on loopback, and its files in the driver's folder."""
    return {
        "SPARK_HOME": str(desk.spark_home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(desk.scratch),
        "TMPDIR": str(desk.scratch),
    }


def _archives(asked: Mapping[str, str]) -> tuple[str, ...]:
    lists = [asked.get(name, "") for name in ("spark.archives", "spark.yarn.dist.archives")]
    urls = [url.partition("#")[0] for text in lists for url in text.split(",")]
    return tuple(url for url in urls if _S3.fullmatch(url))


def _fetch(url: str, folder: Path, fetched: dict[str, Path]) -> str:
    """The local path of a file in S3, which is noted to be fetched; other files keep theirs."""
    place, _, alias = url.strip().partition("#")
    if not _S3.fullmatch(place):
        return url
    fetched[place] = folder / (alias or place.rpartition("/")[2])
    return str(fetched[place])
