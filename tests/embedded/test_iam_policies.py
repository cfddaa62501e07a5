"""What policies allow: documents, conditions, and what several of them come to together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.aws.account import ACCOUNT
from embedded.aws.iam.context import Context
from embedded.aws.iam.decisions import Decision, Holdings, decide
from embedded.aws.iam.patterns import Pattern
from embedded.aws.iam.policies import BadPolicy, Call, Caller, Policy, grants, read_policy
from embedded.aws.iam.resources import Attached

ROLE = f"arn:aws:iam::{ACCOUNT}:role/worker"
CALLER = Caller("worker", ROLE, f"arn:aws:sts::{ACCOUNT}:assumed-role/worker/evening", ACCOUNT)
OBJECT = "arn:aws:s3:::market/bars/a"
ALLOW = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::market/*"}
DENY = {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}
VALUES: Mapping[str, str | Sequence[str]] = {
    "aws:SecureTransport": "true",
    "s3:TlsVersion": "1.3",
    "iam:PassedToService": "ec2.amazonaws.com",
    "cloudwatch:namespace": "/aws/sagemaker/TrainingJobs",
    "aws:PrincipalAccount": ACCOUNT,
    "aws:PrincipalTag/team": "prices",
    "aws:CurrentTime": "2026-11-22T20:00:00+00:00",
    "aws:EpochTime": "1795377600",
    "aws:SourceIp": "10.1.2.3",
    "aws:TagKeys": ["phase", "owner"],
    "aws:PrincipalArn": ROLE,
    "wild": "a*",
}


def policy(*statements: Any, name: str = "inline", version: str = "2012-10-17") -> Policy:
    return Policy(name, read_policy({"Version": version, "Statement": list(statements)}))


def decided(
    *policies: Policy,
    action: str = "s3:GetObject",
    resource: str = OBJECT,
    attached: Attached | None = None,
    boundary: Policy | None = None,
    session: Policy | None = None,
    tags: Mapping[str, str] | None = None,
) -> Decision:
    """What the policies come to for a call of the worker."""
    limits = [None if limit is None else limit.document for limit in (boundary, session)]
    call = Call(action, resource, Context(VALUES, lambda: tags or {}))
    return decide(CALLER, Holdings(policies, *limits), attached, call)


def meets(condition: Mapping[str, Any], effect: str = "Allow") -> bool:
    """Whether a statement with this condition is about the call."""
    document = read_policy(
        {"Version": "2012-10-17", "Statement": [{**ALLOW, "Effect": effect, "Condition": condition}]}
    )
    return document.says(CALLER, Call("s3:GetObject", OBJECT, Context(VALUES, lambda: {"phase": "serve"}))).effect != ""


# --- statements -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        (ALLOW, True),
        ({**ALLOW, "Action": ["s3:PutObject", "S3:getobject"]}, True),
        ({**ALLOW, "Action": "s3:Get*"}, True),
        ({**ALLOW, "Action": "s3:GetObjec?"}, True),
        ({**ALLOW, "Action": "s3:GetObjectVersion"}, False),
        ({**ALLOW, "Action": "*"}, True),
        ({**ALLOW, "Resource": "arn:aws:s3:::MARKET/*"}, False),
        ({**ALLOW, "Resource": "arn:aws:s3:::market"}, False),
        ({**ALLOW, "Resource": ["arn:aws:s3:::other/*", "arn:aws:s3:::market/*/a"]}, True),
        ({**ALLOW, "Resource": "*"}, True),
        ({"Effect": "Allow", "NotAction": "s3:Delete*", "Resource": "*"}, True),
        ({"Effect": "Allow", "NotAction": "s3:Get*", "Resource": "*"}, False),
        ({"Effect": "Allow", "Action": "s3:*", "NotResource": "arn:aws:s3:::other/*"}, True),
        ({"Effect": "Allow", "Action": "s3:*", "NotResource": "arn:aws:s3:::market/*"}, False),
        ({**ALLOW, "Resource": "arn:aws:s3:::market/${aws:PrincipalTag/folder, 'bars'}/*"}, True),
        ({**ALLOW, "Resource": "arn:aws:s3:::market/${aws:PrincipalTag/folder}/*"}, False),
    ],
)
def test_a_statement_is_about_its_actions_and_resources(statement: Any, allowed: bool) -> None:
    assert decided(policy(statement)).allowed == allowed


def test_an_action_that_knows_no_resources_needs_a_statement_about_all() -> None:
    for resource, allowed in (("*", True), ("arn:aws:batch:us-east-1:123456789012:job/*", False)):
        statement = {"Effect": "Allow", "Action": "batch:DescribeJobs", "Resource": resource}
        assert decided(policy(statement), action="batch:DescribeJobs", resource="*").allowed == allowed


def test_variables_are_read_in_the_newer_version_of_the_language_only() -> None:
    statement = {**ALLOW, "Resource": "arn:aws:s3:::market/${aws:PrincipalTag/folder, 'bars'}/*"}
    assert not decided(policy(statement, version="2008-10-17")).allowed


def test_the_value_of_a_variable_is_no_pattern() -> None:
    pattern = Pattern("x/${wild}", variables=True)
    context = Context(VALUES)
    assert pattern.matches("x/a*", context.get)
    assert not pattern.matches("x/ab", context.get)
    assert Pattern("${*}${?}${$}", variables=True).matches("*?$", context.get)


def test_what_is_no_policy_is_refused_with_a_word_about_it() -> None:
    for text in ("", "[]", '{"Version": "2012-10-17"}', '{"Statement": [{"Effect": "Allow"}]}'):
        with pytest.raises(BadPolicy, match="is no policy document"):
            read_policy(text)


# --- patterns, against a slow and plain reading of them -------------------------------------------


def plainly(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(plainly(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in {"?", text[0]} and plainly(pattern[1:], text[1:])


@given(st.text(alphabet="ab*?/:.\n", max_size=8), st.text(alphabet="ab/:.\n", max_size=8))
def test_stars_and_question_marks_stand_for_any_characters(pattern: str, text: str) -> None:
    assert Pattern(pattern).matches(text, Context({}).get) == plainly(pattern, text)


@given(st.text(max_size=20))
def test_the_value_of_a_variable_stands_for_itself_alone(value: str) -> None:
    context = Context({"key": value})
    assert Pattern("<${key}>", variables=True).matches(f"<{value}>", context.get)
    assert Pattern("<${key}>", variables=True).plain(context.get) == f"<{value}>"


# --- conditions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        # those of the stacks that the CDK writes
        ({"Bool": {"aws:SecureTransport": "false"}}, False),
        ({"Bool": {"aws:SecureTransport": True}}, True),
        ({"NumericLessThan": {"s3:TlsVersion": 1.2}}, False),
        ({"NumericGreaterThanEquals": {"s3:TlsVersion": "1.2"}}, True),
        ({"StringEquals": {"iam:PassedToService": ["sagemaker.amazonaws.com", "ec2.amazonaws.com"]}}, True),
        ({"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}, False),
        ({"StringLike": {"iam:PassedToService": "ec2.amazonaws.com*"}}, True),
        ({"StringLike": {"cloudwatch:namespace": ["/aws/sagemaker/*", "aws/sagemaker/*"]}}, True),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:s3:::market"}}, False),
        ({"StringEquals": {"aws:SourceAccount": ACCOUNT}}, False),
        # keys that the request does not have
        ({"StringNotEquals": {"aws:SourceAccount": ACCOUNT}}, True),
        ({"StringEqualsIfExists": {"aws:SourceAccount": "1"}}, True),
        ({"StringEqualsIfExists": {"aws:PrincipalAccount": "1"}}, False),
        ({"Null": {"aws:SourceAccount": "true"}}, True),
        ({"Null": {"aws:PrincipalAccount": "true"}}, False),
        ({"Null": {"aws:PrincipalAccount": False}}, True),
        ({"NumericLessThan": {"s3:max-keys": 10}}, False),
        # keys with several values
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["phase", "team"]}}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": "team"}}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["phase", "owner", "team"]}}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["phase"]}}, False),
        ({"ForAllValues:StringEquals": {"missing": ["phase"]}}, True),
        ({"ForAnyValue:StringEquals": {"missing": ["phase"]}}, False),
        ({"ForAllValues:StringNotEquals": {"aws:TagKeys": ["phase"]}}, False),
        ({"ForAnyValue:StringNotEquals": {"aws:TagKeys": ["phase"]}}, True),
        # the other operators
        ({"StringNotLike": {"aws:PrincipalArn": "*/work*"}}, False),
        ({"StringEqualsIgnoreCase": {"aws:PrincipalTag/TEAM": "Prices"}}, True),
        ({"StringNotEqualsIgnoreCase": {"aws:PrincipalTag/team": "Prices"}}, False),
        ({"StringEquals": {"aws:PrincipalTag/team": "Prices"}}, False),
        ({"StringEquals": {"aws:PrincipalArn": "*"}}, False),
        ({"StringEquals": {"aws:PrincipalAccount": "${aws:PrincipalAccount}"}}, True),
        ({"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::*:role/w*"}}, True),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:*:role/worker"}}, False),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam:*"}}, True),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/${aws:PrincipalTag/team, 'worker'}"}}, False),
        ({"ArnNotLike": {"aws:PrincipalArn": ROLE}}, False),
        ({"DateGreaterThan": {"aws:CurrentTime": "2026-11-22T19:00:00Z"}}, True),
        ({"DateLessThan": {"aws:CurrentTime": "2026-11-22"}}, False),
        ({"DateEquals": {"aws:EpochTime": "2026-11-22T20:00:00Z"}}, True),
        ({"IpAddress": {"aws:SourceIp": ["192.168.0.0/16", "10.0.0.0/8"]}}, True),
        ({"NotIpAddress": {"aws:SourceIp": "10.1.2.3"}}, False),
        ({"IpAddress": {"aws:PrincipalArn": "10.0.0.0/8"}}, False),
        ({"NumericEquals": {"aws:PrincipalArn": "1"}}, False),
        ({"BinaryEquals": {"wild": "YQ=="}}, False),
        # all must hold
        ({"Bool": {"aws:SecureTransport": "true"}, "StringEquals": {"aws:PrincipalAccount": "1"}}, False),
        ({"StringEquals": {"aws:PrincipalAccount": ACCOUNT, "aws:PrincipalTag/team": "volumes"}}, False),
        # tags of the resource, looked up when they are asked for
        ({"StringEquals": {"aws:ResourceTag/Phase": "serve"}}, True),
        ({"StringEquals": {"elasticmapreduce:ResourceTag/phase": "serve"}}, True),
        ({"StringEquals": {"aws:ResourceTag/owner": "serve"}}, False),
    ],
)
def test_conditions_are_met_as_aws_says(condition: Mapping[str, Any], met: bool) -> None:
    assert meets(condition) == met


@pytest.mark.parametrize("operator", ["StringAlike", "ForSomeValues:StringEquals"])
def test_an_operator_that_is_not_known_never_allows_and_always_denies(operator: str) -> None:
    condition = {operator: {"aws:PrincipalAccount": ACCOUNT}}
    assert not meets(condition)
    assert meets(condition, effect="Deny")


# --- together -------------------------------------------------------------------------------------


def test_nothing_is_allowed_without_a_statement() -> None:
    assert decided() == Decision(False, "because no identity-based policy allows the s3:GetObject action")


def test_a_deny_in_any_policy_refuses() -> None:
    for policies in ([policy(ALLOW, DENY)], [policy(DENY, ALLOW)], [policy(ALLOW), policy(DENY)]):
        assert decided(*policies) == Decision(False, "with an explicit deny in an identity-based policy")
    on_bucket = attached({**DENY, "Principal": "*"})
    assert decided(policy(ALLOW), attached=on_bucket).reason == "with an explicit deny in a resource-based policy"
    assert (
        decided(policy(ALLOW), boundary=policy(ALLOW, DENY)).reason == "with an explicit deny in a permissions boundary"
    )


def test_boundary_and_session_policy_must_allow_too() -> None:
    other = policy({**ALLOW, "Action": "s3:PutObject"})
    assert decided(policy(ALLOW), boundary=policy(ALLOW), session=policy(ALLOW)).allowed
    assert decided(policy(ALLOW), boundary=other).reason.startswith("because no permissions boundary allows")
    assert decided(policy(ALLOW), session=other).reason.startswith("because no session policy allows")
    assert not decided(boundary=policy(ALLOW), session=policy(ALLOW)).allowed


def test_the_first_statement_that_allows_is_the_one_that_was_needed() -> None:
    first, second = policy({**ALLOW, "Action": ["s3:Put*", "s3:Get*"]}, name="first"), policy(ALLOW, name="second")
    grant = decided(first, second).grant
    assert grant is not None
    assert (grant.policy, grant.statement.index, grant.action) == ("first", 0, "s3:Get*")


def test_a_grant_is_one_pattern_of_one_statement_that_allows() -> None:
    named = policy({**ALLOW, "Action": ["s3:Put*", "s3:Get*"]}, DENY, {"Effect": "Allow", "NotAction": "iam:*"})
    assert [grant.action for grant in grants([named])] == ["s3:Put*", "s3:Get*", "all but iam:*"]


def attached(statement: Any, decisive: bool = False) -> Attached:
    return Attached(policy(statement).document, decisive)


@pytest.mark.parametrize(
    ("principal", "allowed"),
    [
        ("*", True),
        ({"AWS": "*"}, True),
        ({"AWS": [ROLE]}, True),
        ({"AWS": CALLER.session_arn}, True),
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:role/other"}, False),
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, False),
        ({"Service": "logging.s3.amazonaws.com"}, False),
    ],
)
def test_a_resource_policy_allows_those_whom_it_names(principal: Any, allowed: bool) -> None:
    assert decided(attached=attached({**ALLOW, "Principal": principal})).allowed == allowed


def test_a_resource_policy_denies_an_account_with_all_its_roles() -> None:
    statement = {**DENY, "Principal": {"AWS": ACCOUNT}}
    assert not decided(policy(ALLOW), attached=attached(statement)).allowed


def test_a_deny_to_all_but_some_spares_those() -> None:
    for spared, allowed in (([ROLE, ACCOUNT], True), (["arn:aws:iam::1:role/x"], False)):
        statement = {**DENY, "NotPrincipal": {"AWS": spared}}
        assert decided(policy(ALLOW), attached=attached(statement)).allowed == allowed


def test_a_key_is_used_only_where_its_policy_allows_it() -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/1"
    own = policy({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": key})
    to_account = {"Effect": "Allow", "Action": "kms:*", "Resource": "*", "Principal": {"AWS": ACCOUNT}}
    to_role = {**to_account, "Principal": {"AWS": ROLE}}
    to_other = {**to_account, "Principal": {"AWS": "arn:aws:iam::123456789012:role/other"}}

    def may(statement: Any, *policies: Policy) -> bool:
        return decided(
            *policies, action="kms:Decrypt", resource=key, attached=attached(statement, decisive=True)
        ).allowed

    assert may(to_account, own)
    assert not may(to_account)
    assert may(to_role)
    assert not may(to_other, own)


STATEMENTS = st.fixed_dictionaries(
    {
        "Effect": st.sampled_from(["Allow", "Deny"]),
        "Action": st.sampled_from(["s3:GetObject", "s3:Get*", "s3:PutObject", "*"]),
        "Resource": st.sampled_from([OBJECT, "arn:aws:s3:::market/*", "arn:aws:s3:::other/*", "*"]),
    }
)


@given(st.lists(STATEMENTS, max_size=5), STATEMENTS)
def test_an_allow_more_takes_nothing_away_and_a_deny_more_gives_nothing(
    statements: list[dict[str, Any]], more: dict[str, Any]
) -> None:
    before, after = decided(policy(*statements)).allowed, decided(policy(*statements, more)).allowed
    assert after >= before if more["Effect"] == "Allow" else after <= before


@given(st.lists(STATEMENTS, max_size=5), st.randoms(use_true_random=False))
def test_order_and_division_of_statements_decide_nothing(statements: list[dict[str, Any]], random: Any) -> None:
    shuffled = random.sample(statements, len(statements))
    one_each = [policy(statement, name=json.dumps(statement)) for statement in shuffled]
    assert decided(policy(*statements)).allowed == decided(*one_each).allowed
