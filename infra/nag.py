"""cdk-nag's AwsSolutions rules: checked in every synth, and every exception from them states its reason.

A finding without a reason ends the synth. Findings, and exceptions with their reasons, are listed in
``validation-report.json`` of the synthesised folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsii
from aws_cdk import Acknowledgment, App, Stack, Validations
from aws_cdk.aws_iam import IManagedPolicy
from cdk_nag import AwsSolutionsChecks
from constructs import IConstruct, IValidation

_PACK = "AwsSolutions"
_METADATA = "aws:cdk:acknowledged-rules"


def check(app: App) -> None:
    """Hold the app against the AwsSolutions rules at its synth."""
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))


def acknowledge(scope: IConstruct, rule: str, reason: str, *findings: str) -> None:
    """State why `rule` (``AwsSolutions-S1``) may be broken by `scope` and what is below it.

    findings: for a rule that reports each offence by itself (IAM4, IAM5), those that are meant:
    ``Resource::<arn>``, ``Action::s3:GetObject*``, ``Policy::<arn>``; the ARNs may hold tokens.
    """
    if findings:
        scope.node.add_validation(_Findings(scope, rule, reason, findings))
    else:
        _record(scope, rule, reason)


@dataclass(frozen=True)
class Report:
    """What the rules said of one synthesised app.

    open: ``<construct path> <rule>`` of the findings without a reason.
    reasons: ``<construct path> <rule>`` of each exception that is needed, with its reason.
    idle: the same of exceptions that nothing needs any more.
    """

    open: tuple[str, ...]
    reasons: Mapping[str, str]
    idle: tuple[str, ...]


def read_report(folder: Path) -> Report:
    """The report of an app that `check` was called on and that was synthesised into `folder`."""
    plugins = json.loads((folder / "validation-report.json").read_text())["pluginReports"]
    pack = next(plugin for plugin in plugins if plugin["pluginName"] == _PACK)
    needed = {
        f"{finding['acknowledgedAt']} {finding['acknowledgedId']}": finding["reason"]
        for finding in pack.get("suppressedViolations", ())
    }
    still_open = (
        f"{construct['constructPath']} {finding['ruleName']}"
        for finding in pack["violations"]
        for construct in finding["violatingConstructs"]
    )
    return Report(tuple(still_open), needed, tuple(sorted(_stated(folder) - needed.keys())))


@jsii.implements(IValidation)
class _Findings:
    """Acknowledges findings in CDK's validation phase: only there have references to other stacks their final form."""

    def __init__(self, scope: IConstruct, rule: str, reason: str, findings: tuple[str, ...]) -> None:
        self._scope = scope
        self._rule = rule
        self._reason = reason
        self._findings = findings

    def validate(self) -> list[str]:
        stack = Stack.of(self._scope)
        for finding in self._findings:
            _record(self._scope, f"{self._rule}[{_flatten(stack.resolve(finding))}]", self._reason)
        return []


def acknowledge_managed_policy(role: IConstruct, policy: IManagedPolicy, reason: str) -> None:
    """State why a role is given a policy that AWS writes."""
    acknowledge(role, "AwsSolutions-IAM4", reason, f"Policy::{policy.managed_policy_arn}")


def _record(scope: IConstruct, rule: str, reason: str) -> None:
    Validations.of(scope).acknowledge(Acknowledgment(id=f"{_PACK}::{rule}", reason=reason))


def _flatten(value: Any) -> str:
    """A resolved value as cdk-nag spells it in the name of a finding."""
    match value:
        case str():
            return value.replace("${", "<").replace("}", ">")
        case {"Fn::Join": [delimiter, parts]}:
            return str(delimiter).join(_flatten(part) for part in parts)
        case {"Fn::GetAtt": [resource, attribute]}:
            return f"<{_flatten(resource)}.{_flatten(attribute)}>"
        case {"Fn::ImportValue": inner} | {"Fn::Sub": inner}:
            return _flatten(inner)
        case {"Ref": name}:
            return f"<{_flatten(name)}>"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _stated(folder: Path) -> set[str]:
    """Every exception of the app, needed or not, as CDK wrote it beside the templates."""
    return {
        f"{path.removeprefix('/')} {rule}"
        for file in folder.glob("*.metadata.json")
        for path, entries in json.loads(file.read_text()).items()
        for entry in entries
        if entry["type"] == _METADATA
        for rule in entry["data"]
        if rule.startswith(f"{_PACK}::")
    }
