"""Sends a scaling element's documents to an emulator of AWS with boto3, reads everything back, prints it as documents.

boto3 checks every parameter against Amazon's own service models before it sends. As whoever sends does, it puts in the
identifiers that the cloud knows our names by, and takes them out of what it reads.
"""

import json
import re
import sys

import boto3
from botocore import xform_name

endpoint, documents = sys.argv[1], json.load(sys.stdin)


def client(service):
    return boto3.client(
        service, endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )


iam, ec2, scaling, watch = (client(s) for s in ("iam", "ec2", "autoscaling", "cloudwatch"))
services = {"LaunchTemplate": ec2, "Role": iam, "InstanceProfile": iam, "MetricAlarm": watch}
ours, answers = {}, {}


def known_as(name, identifier):
    ours[name] = identifier


def sent(value):
    """With identifiers for names, and answers for references."""
    if isinstance(value, dict):
        return {key: sent(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [sent(inner) for inner in value]
    if isinstance(value, str):
        reference = re.fullmatch(r"\$\{(\w+)\.([\w-]+)\.(\w+)\}", value)
        if reference:
            return answers[reference.groups()[:2]][reference.group(3)]
        return ",".join(ours.get(part, part) for part in value.split(","))
    return value


def received(value):
    text = json.dumps(value, default=str)
    for name, identifier in ours.items():
        text = text.replace(identifier, name)
    return json.loads(text)


vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
subnets = {s["AvailabilityZone"]: s["SubnetId"] for s in ec2.describe_subnets()["Subnets"]}
known_as("subnet-a", subnets["us-east-1a"])
known_as("subnet-b", subnets["us-east-1b"])
known_as("render:v3", ec2.describe_images()["Images"][0]["ImageId"])

for document in documents:
    kind, body = document["kind"], document["body"]
    if kind == "SetInstanceProtection":
        group = scaling.describe_auto_scaling_groups()["AutoScalingGroups"][0]
        known_as(body["InstanceIds"][0], group["Instances"][0]["InstanceId"])
    service = next((s for word, s in services.items() if word in kind), scaling)
    answer = getattr(service, xform_name(kind))(**sent(body))
    if kind == "PutScalingPolicy" and "PolicyARN" not in answer:  # moto answers without it
        answer = scaling.describe_policies(PolicyNames=[body["PolicyName"]])["ScalingPolicies"][0]
    answers[(kind, document["name"])] = answer

read = []


def back(kind, body):
    body.pop("ResponseMetadata", None)
    read.append({"kind": kind, "name": "", "body": received(body)})


for role in iam.list_roles()["Roles"]:
    role["AssumeRolePolicyDocument"] = json.dumps(role["AssumeRolePolicyDocument"])
    back("CreateRole", role)
    for name in iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]:
        policy = iam.get_role_policy(RoleName=role["RoleName"], PolicyName=name)
        policy["PolicyDocument"] = json.dumps(policy["PolicyDocument"])
        back("PutRolePolicy", policy)
for version in ec2.describe_launch_template_versions(LaunchTemplateName="render")["LaunchTemplateVersions"]:
    back("CreateLaunchTemplate", version)
for group in scaling.describe_auto_scaling_groups()["AutoScalingGroups"]:
    spared = [i["InstanceId"] for i in group["Instances"] if i["ProtectedFromScaleIn"]]
    back("CreateAutoScalingGroup", group)
    back(
        "SetInstanceProtection",
        {"AutoScalingGroupName": group["AutoScalingGroupName"], "InstanceIds": spared, "ProtectedFromScaleIn": True},
    )
for policy in scaling.describe_policies()["ScalingPolicies"]:
    back("PutScalingPolicy", policy)
for action in scaling.describe_scheduled_actions()["ScheduledUpdateGroupActions"]:
    back("PutScheduledUpdateGroupAction", action)
for alarm in watch.describe_alarms()["MetricAlarms"]:
    back("PutMetricAlarm", alarm)
print(json.dumps(read))
