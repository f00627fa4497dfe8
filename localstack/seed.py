"""Fills moto, and writes the simulator's scenario for the same accounts:
seed.py MOTO SCENARIO [SESSION_LIFE].

Prints the members of localstack/up's ready line that only it knows: accounts and roles. Speaks to moto
on loopback and to nobody else.
"""

import json
import sys

import boto3
from botocore.config import Config

# What moto calls its own account; the organization's others have random numbers.
MANAGEMENT = "123456789012"
REGION = "us-west-2"
SECOND_REGION = "eu-central-1"


def client(moto, service, account):
    """A client that acts in an account; moto takes the header's word for it."""
    made = boto3.client(
        service,
        endpoint_url=moto,
        region_name=REGION,
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="not-a-secret",
        config=Config(proxies={}, retries={"max_attempts": 0}),
    )

    def as_account(params, **_):
        params["headers"]["x-moto-account-id"] = account

    made.meta.events.register("before-call", as_account)
    return made


def accounts(moto):
    organizations = client(moto, "organizations", MANAGEMENT)
    organizations.create_organization(FeatureSet="ALL")
    made = {"management": MANAGEMENT}
    for name in ("shop", "lab"):
        answer = organizations.create_account(AccountName=name, Email=f"{name}@internal.example")
        made[name] = answer["CreateAccountStatus"]["AccountId"]
    return made


def roles(made):
    """One with an external id, one with another, and one name in two accounts without any."""
    plan = [
        ("shop", "muster-verifier", "muster-example"),
        ("lab", "muster-verifier", "lab-example"),
        ("shop", "inventory", None),
        ("lab", "inventory", None),
    ]
    return [
        {
            "account": made[name],
            "name": role,
            "arn": f"arn:aws:iam::{made[name]}:role/{role}",
            "external_id": external_id,
        }
        for name, role, external_id in plan
    ]


def create_role(moto, role):
    allow = {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"AWS": f"arn:aws:iam::{MANAGEMENT}:root"},
    }
    if role["external_id"]:
        allow["Condition"] = {"StringEquals": {"sts:ExternalId": role["external_id"]}}
    trust = {"Version": "2012-10-17", "Statement": [allow]}
    client(moto, "iam", role["account"]).create_role(
        RoleName=role["name"], AssumeRolePolicyDocument=json.dumps(trust)
    )


def scenario(made, made_roles, session_life):
    groups = [
        ("management", REGION, 1, "server"),
        ("shop", REGION, 3, "web"),
        ("shop", SECOND_REGION, 2, "web"),
        ("lab", REGION, 500, "worker"),
    ]
    # A string of JSON is one of TOML, too.
    lines = [f"session_life = {json.dumps(session_life)}"] if session_life else []
    lines += ["[server]", f"account = {json.dumps(made['management'])}"]
    for name, region, count, profile in groups:
        lines += [
            "[[instances]]",
            f"account = {json.dumps(made[name])}",
            f"region = {json.dumps(region)}",
            f"count = {count}",
            f"instance_profile = {json.dumps(profile)}",
            f"tags = {{Name = {json.dumps(f'{name}-{profile}')}}}",
        ]
    for role in made_roles:
        lines += ["[[roles]]"]
        lines += [f"account = {json.dumps(role['account'])}", f"name = {json.dumps(role['name'])}"]
        if role["external_id"]:
            lines += [f"external_id = {json.dumps(role['external_id'])}"]
    return "\n".join(lines) + "\n"


def main():
    moto, path, *session_life = sys.argv[1:]
    if not moto.startswith("http://127.0.0.1:"):
        sys.exit(f"{moto} is not on loopback")
    made = accounts(moto)
    made_roles = roles(made)
    for role in made_roles:
        create_role(moto, role)
    with open(path, "w", encoding="utf-8") as file:
        file.write(scenario(made, made_roles, *session_life or [None]))
    print(json.dumps({"accounts": made, "roles": made_roles}).removeprefix("{").removesuffix("}"))


main()
