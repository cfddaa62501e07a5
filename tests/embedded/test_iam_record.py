"""What the record tells of calls and grants, and how grants that nothing needed are judged."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from embedded.aws.iam.context import Context
from embedded.aws.iam.decisions import Decision
from embedded.aws.iam.justified import BadJustifications, Justification, judge, read_justifications
from embedded.aws.iam.policies import Call, Caller, Grant, Policy, grants, read_policy
from embedded.aws.iam.record import Record
from embedded.aws.iam.roles import Role

CALLER = Caller("worker", "arn:aws:iam::1:role/worker", "arn:aws:sts::1:assumed-role/worker/evening", "1")
STATEMENTS = [
    {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::market/*"},
    {"Sid": "Logs", "Effect": "Allow", "Action": "logs:*", "Resource": "*"},
    {"Effect": "Deny", "Action": "iam:*", "Resource": "*"},
]


def worker(*statements: Any) -> Role:
    document = read_policy({"Version": "2012-10-17", "Statement": list(statements)})
    trust = read_policy({"Statement": []})
    return Role("AROA", "worker", CALLER.role_arn, (Policy("inline", document),), None, trust, {})


def grant(role: Role, action: str) -> Grant:
    return next(one for one in grants(role.identity) if one.action == action)


def saw(record: Record, action: str, resource: str, decision: Decision) -> None:
    record.saw(CALLER, Call(action, resource, Context({})), decision)


def test_calls_are_counted_by_role_action_and_resource() -> None:
    role = worker(*STATEMENTS)
    record = Record(lambda: [role])
    for resource in ("arn:aws:s3:::market/a", "arn:aws:s3:::market/a", "arn:aws:s3:::market/b"):
        saw(record, "s3:GetObject", resource, Decision(True, grant=grant(role, "s3:GetObject")))
    saw(record, "iam:PassRole", "arn:aws:iam::1:role/x", Decision(False, "because of something"))
    report = json.loads(json.dumps(record.report()))
    call = {"role": "worker", "action": "s3:GetObject", "allowed": True}
    refused = {"role": "worker", "action": "iam:PassRole", "resource": "arn:aws:iam::1:role/x", "count": 1}
    refused |= {"allowed": False, "reason": "because of something"}
    assert report["calls"] == [
        refused,
        {**call, "resource": "arn:aws:s3:::market/a", "count": 2},
        {**call, "resource": "arn:aws:s3:::market/b", "count": 1},
    ]
    assert report["calls_without_grant"] == [refused]
    assert len(report["roles"]["worker"]["calls"]) == 3


def test_grants_that_no_call_needed_are_told() -> None:
    role = worker(*STATEMENTS)
    record = Record(lambda: [role])
    saw(record, "s3:GetObject", "arn:aws:s3:::market/a", Decision(True, grant=grant(role, "s3:GetObject")))
    assert record.report()["unused_grants"] == [
        {
            "role": "worker",
            "policy": "inline",
            "sid": 0,
            "action": "s3:PutObject",
            "resources": ["arn:aws:s3:::market/*"],
        },
        {"role": "worker", "policy": "inline", "sid": "Logs", "action": "logs:*", "resources": ["*"]},
    ]


def test_a_grant_stays_used_when_its_policy_is_written_anew_around_it() -> None:
    roles = [worker(*STATEMENTS)]
    record = Record(lambda: roles)
    saw(record, "s3:GetObject", "arn:aws:s3:::market/a", Decision(True, grant=grant(roles[0], "s3:GetObject")))
    roles[0] = worker(*reversed(STATEMENTS))
    assert [one["action"] for one in record.report()["unused_grants"]] == ["logs:*", "s3:PutObject"]


def test_many_resources_are_counted_together_from_some_number_on() -> None:
    record = Record(lambda: [])
    for number in range(1000):
        saw(record, "s3:GetObject", f"arn:aws:s3:::market/bars/{number}", Decision(True))
    saw(record, "s3:GetObject", "arn:aws:s3:::market/bars/7", Decision(True))
    calls = {call["resource"]: call["count"] for call in record.report()["calls"]}
    assert len(calls) == 201
    assert calls["arn:aws:s3:::market/..."] == 800
    assert calls["arn:aws:s3:::market/bars/7"] == 2


def test_calls_from_many_threads_are_all_counted() -> None:
    record = Record(lambda: [])
    with ThreadPoolExecutor(8) as threads:
        for _ in range(2000):
            threads.submit(saw, record, "s3:GetObject", "arn:aws:s3:::market/a", Decision(True))
    assert record.report()["calls"][0]["count"] == 2000


def test_a_reset_forgets_calls_and_uses() -> None:
    role = worker(*STATEMENTS)
    record = Record(lambda: [role])
    saw(record, "s3:GetObject", "arn:aws:s3:::market/a", Decision(True, grant=grant(role, "s3:GetObject")))
    record.reset()
    report = record.report()
    assert report["calls"] == []
    assert len(report["unused_grants"]) == 3


# --- justifications -------------------------------------------------------------------------------

UNUSED = [
    {"role": "stack-WorkerRole-1A", "policy": "inline", "sid": 0, "action": "s3:PutObject", "resources": ["*"]},
    {
        "role": "stack-WorkerRole-1A",
        "policy": "inline",
        "sid": 1,
        "action": "xray:PutTraceSegments",
        "resources": ["*"],
    },
    {"role": "stack-Other-2B", "policy": "inline", "sid": 0, "action": "xray:PutTraceSegments", "resources": ["*"]},
]


def test_unused_grants_are_justified_by_patterns_of_role_and_action() -> None:
    tracing = Justification("*-WorkerRole-*", "xray:*", "only a Lambda that is traced writes traces")
    needless = Justification("*", "kms:*", "nothing")
    judgement = judge(UNUSED, [needless, tracing])
    assert judgement.justified == [{**UNUSED[1], "reason": tracing.reason}]
    assert judgement.unjustified == [UNUSED[0], UNUSED[2]]
    assert judgement.needless == [needless]


def test_a_grant_has_the_reason_of_the_first_that_covers_it_and_neither_is_needless() -> None:
    first, second = Justification("*", "s3:*", "first"), Justification("*", "*", "second")
    judgement = judge(UNUSED[:1], [first, second])
    assert judgement.justified == [{**UNUSED[0], "reason": "first"}]
    assert judgement.needless == []


def test_justifications_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "justified.toml"
    path.write_text('[[justified]]\nrole = "*"\naction = "xray:*"\nreason = "nothing is traced here"\n')
    assert read_justifications(path) == [Justification("*", "xray:*", "nothing is traced here")]


@pytest.mark.parametrize(
    "text",
    ['role = "x"', '[[justified]]\nrole = "x"', '[[justified]]\nrole = "x"\naction = "y"\nreason = " "', "[", None],
)
def test_a_list_that_gives_no_reasons_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "justified.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadJustifications, match=r"justified\.toml"):
        read_justifications(path)
