"""What a training script finds in its container: the platform's files in `/opt/ml`, the toolkit's variables.

After the behaviour of github.com/aws/sagemaker-training-toolkit. Every host of a job has a folder of its own that
stands for its `/opt/ml`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded.aws.training.data import JobFault

CODE = "/opt/ml/code"
"""Where an image has the script."""
INTERFACE = "lo"
"""The network between the hosts of a job."""
_OF_THE_PLATFORM = frozenset({"_tuning_objective_metric", "default_user_module_name"})
_NO_FRAMEWORK = frozenset(
    f"sagemaker_{name}"
    for name in ("program", "submit_directory", "region", "container_log_level", "job_name", "s3_output")
)
"""Parameters of the platform that the toolkit does not count as the framework's."""


@dataclass(frozen=True)
class Parameters:
    """Hyperparameters as the toolkit reads them: the script's, and those that tell the toolkit what to do."""

    script: Mapping[str, Any]
    toolkit: Mapping[str, Any]

    @classmethod
    def read(cls, hyperparameters: Mapping[str, str]) -> Parameters:
        """Decode each value as JSON where it is some."""
        decoded = {name: _decoded(text) for name, text in hyperparameters.items()}
        toolkit = {name for name in decoded if name.startswith("sagemaker_") or name in _OF_THE_PLATFORM}
        return cls(
            {name: value for name, value in decoded.items() if name not in toolkit},
            {name: value for name, value in decoded.items() if name in toolkit},
        )

    def arguments(self) -> list[str]:
        """The script's parameters as its command line."""
        pairs = ((f"--{name}" if len(name) > 1 else f"-{name}", self.script[name]) for name in sorted(self.script))
        return [word for flag, value in pairs for word in (flag, _argument(value))]

    def ranks_per_host(self) -> int:
        """How many processes mpirun starts on each host; 0 when it is not asked for. Raises JobFault."""
        if not self.toolkit.get("sagemaker_mpi_enabled"):
            return 0
        count = self.toolkit.get("sagemaker_mpi_num_of_processes_per_host", 1)
        if not isinstance(count, int) or count < 1:
            raise JobFault(f"ClientError: sagemaker_mpi_num_of_processes_per_host is {count!r}: give 1 or more")
        return count


@dataclass(frozen=True)
class OptMl:
    """The folder that stands for a host's `/opt/ml`."""

    root: Path

    @property
    def model(self) -> Path:
        """What becomes model.tar.gz."""
        return self.root / "model"

    @property
    def data(self) -> Path:
        """Input channels."""
        return self.root / "input" / "data"

    @property
    def config(self) -> Path:
        """What the platform tells the container."""
        return self.root / "input" / "config"

    @property
    def output(self) -> Path:
        """Where a script that fails says why, in `failure`."""
        return self.root / "output"

    @property
    def output_data(self) -> Path:
        """What becomes output.tar.gz."""
        return self.output / "data"

    def create(self, files: Mapping[str, Any]) -> None:
        """Make the folders, and `input/config` with these files."""
        for folder in (self.model, self.data, self.config, self.output_data, self.output / "intermediate"):
            folder.mkdir(parents=True)
        for name, content in files.items():
            (self.config / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def resource_config(host: str, hosts: Sequence[str], instance_type: str) -> dict[str, Any]:
    """`resourceconfig.json` of a host."""
    group = {"instance_group_name": "homogeneousCluster", "instance_type": instance_type, "hosts": [*hosts]}
    return {
        "current_host": host,
        "current_instance_type": instance_type,
        "current_group_name": group["instance_group_name"],
        "hosts": [*hosts],
        "instance_groups": [group],
        "network_interface_name": INTERFACE,
    }


def input_data_config(channels: Iterable[Mapping[str, Any]], mode: str) -> dict[str, dict[str, str]]:
    """`inputdataconfig.json`. mode: of channels without one."""
    described = {}
    for channel in channels:
        source = channel["DataSource"].get("S3DataSource", {})
        described[channel["ChannelName"]] = {
            "TrainingInputMode": channel.get("InputMode", mode),
            "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
            "RecordWrapperType": channel.get("RecordWrapperType", "None"),
            **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
        }
    return described


def variables(
    parameters: Parameters,
    place: OptMl,
    resources: Mapping[str, Any],
    inputs: Mapping[str, Any],
    program: str,
    cpus: int,
) -> dict[str, str]:
    """The SM_ variables that the toolkit gives to a script."""
    group = resources["instance_groups"][0]
    environment = {
        "hosts": resources["hosts"],
        "current_host": resources["current_host"],
        "current_instance_type": resources["current_instance_type"],
        "current_instance_group": resources["current_group_name"],
        "current_instance_group_hosts": group["hosts"],
        "instance_groups": [group["instance_group_name"]],
        "instance_groups_dict": {group["instance_group_name"]: group},
        "is_hetero": False,
        "network_interface_name": resources["network_interface_name"],
        "num_cpus": cpus,
        "num_gpus": len(list(Path("/dev").glob("nvidia[0-9]*"))),
        "user_entry_point": program,
        "module_name": program.removesuffix(".py"),
        "module_dir": parameters.toolkit.get("sagemaker_submit_directory", CODE),
        "log_level": parameters.toolkit.get("sagemaker_container_log_level", 20),
        "framework_params": {n: v for n, v in parameters.toolkit.items() if n not in _NO_FRAMEWORK | _OF_THE_PLATFORM},
        "resource_config": resources,
        "input_data_config": inputs,
        "input_dir": str(place.data.parent),
        "input_config_dir": str(place.config),
        "model_dir": str(place.model),
        "output_dir": str(place.output),
        "output_data_dir": str(place.output_data),
        "output_intermediate_dir": str(place.output / "intermediate"),
    }
    channels = {name: str(place.data / name) for name in sorted(inputs)}
    whole = {**environment, "hyperparameters": parameters.script, "channel_input_dirs": channels}
    told = {
        **environment,
        "hps": parameters.script,
        "channels": [*channels],
        "user_args": parameters.arguments(),
        "training_env": whole,
        **{f"channel_{name}": folder for name, folder in channels.items()},
        **{f"hp_{name}": value for name, value in parameters.script.items()},
    }
    return {f"SM_{name.upper()}": _variable(value) for name, value in told.items()}


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _argument(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}={item}" for name, item in sorted(value.items()))
    return "" if value is None else str(value)


def _variable(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))
