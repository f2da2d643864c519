"""`ray up`'s configs: Ray takes them, and what comes of them is closed; AWS as moto plays it, in this process."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.folder import LAUNCHERS, launcher, text

START = ("head_start_ray_commands", "worker_start_ray_commands")
OTHERS = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")


@pytest.fixture(params=LAUNCHERS)
def prepared(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A config with Ray's defaults filled in, as `ray up` first makes it."""
    from ray.autoscaler._private.util import prepare_config

    config = prepare_config(launcher(request.param))
    assert isinstance(config, dict)
    return config


def test_rays_own_validator_takes_it(prepared: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import validate_config

    validate_config(prepared)


def test_every_node_asks_for_the_token_and_has_no_port_for_the_ray_client(prepared: dict[str, Any]) -> None:
    for key in START:
        starts = [command for command in prepared[key] if "ray start" in command]
        assert len(starts) == 1
        assert "RAY_AUTH_MODE=token" in starts[0]
        assert "RAY_START_HOOK=hpo_ray.start_hook.closed" in starts[0]
    assert "--env=RAY_AUTH_MODE=token" in prepared["docker"]["run_options"]  # for what `ray exec` and `attach` run
    assert prepared["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_the_dashboard_is_the_heads_own(prepared: dict[str, Any]) -> None:
    words = " ".join(command for key in (*START, *OTHERS) for command in prepared[key])
    assert re.findall(r"--dashboard-host[= ](\S+)", words) == ["127.0.0.1"]
    assert "0.0.0.0" not in words


def test_what_runs_is_in_a_container_without_root(prepared: dict[str, Any]) -> None:
    options = prepared["docker"]["run_options"]
    assert {"--user=ray", "--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(options)
    assert any(option.startswith("--shm-size=") for option in options)
    assert not [option for option in options if re.search(r"privileged(?!$)|--pid|--cap-add|docker\.sock", option)]


def test_ray_stop_is_said_in_the_container_alone(prepared: dict[str, Any]) -> None:
    """There it sees no other Ray; `initialization_commands` run on the machine itself."""
    assert prepared["docker"]["container_name"]
    assert not [command for key in OTHERS for command in prepared[key] if "ray stop" in command]
    assert all(command == "ray stop" for key in START for command in prepared[key] if "ray stop" in command)


def test_the_package_is_installed_before_ray_starts(prepared: dict[str, Any]) -> None:
    for node in ("head", "worker"):
        install = prepared[f"{node}_setup_commands"][0]
        assert "hpo_ray-*.whl" in install
        assert "--constraint ~/hpo_ray/cluster/constraints.txt" in install
    assert {prepared["file_mounts"]["~/hpo_ray/dist"], prepared["file_mounts"]["~/hpo_ray/cluster"]} == {
        "dist",
        "cluster",
    }


def test_workers_on_aws_are_spot_and_come_from_zero_and_the_head_is_neither() -> None:
    nodes = launcher("aws.yaml")["available_node_types"]
    assert nodes["worker"]["min_workers"] == 0
    assert nodes["worker"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in nodes["head"]["node_config"]
    assert nodes["head"]["resources"] == {"CPU": 0}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_results_are_fetched_to_where_a_run_directory_is_looked_for(name: str) -> None:
    """Ray fetches twice, into the machine and from there: each time into a folder of that name but for the slash."""
    (words,) = re.findall(rf"ray rsync-down cluster/{name} (\S+) (\S+)", text("README.md"))
    assert (words[0][-1], Path(words[0]).name, Path(words[1]).parts[0]) == ("/", Path(words[1]).name, "runs")


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An account that had a cluster before: Ray waits half a minute for a profile that it has just made."""
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray puts the key that it makes into ~/.ssh
    (tmp_path / ".ssh").mkdir()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    moto = pytest.importorskip("moto")
    with moto.mock_aws():
        import boto3

        iam = boto3.client("iam", region_name="us-west-2")
        iam.create_instance_profile(InstanceProfileName="ray-autoscaler-v1")
        iam.create_role(RoleName="ray-autoscaler-v1", AssumeRolePolicyDocument="{}")
        iam.add_role_to_instance_profile(InstanceProfileName="ray-autoscaler-v1", RoleName="ray-autoscaler-v1")
        from ray.autoscaler._private.aws import utils

        utils.resource_cache.cache_clear()
        utils.client_cache.cache_clear()
        yield boto3.resource("ec2", region_name="us-west-2")


def bootstrapped(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` has it before it starts the head."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    filled = AWSNodeProvider.fillout_available_node_types_resources(prepare_config(config))
    return dict(AWSNodeProvider.bootstrap_config(filled))


def test_the_file_systems_security_group_is_there_before_the_nodes_and_they_come_into_it(aws: Any) -> None:
    assert "--group-name ray-autoscaler-hpo-ray" in text("README.md")
    vpc = next(iter(aws.vpcs.all())).id
    group = aws.create_security_group(GroupName="ray-autoscaler-hpo-ray", Description="hpo-ray", VpcId=vpc)
    for described in bootstrapped(launcher("aws.yaml"))["available_node_types"].values():
        assert described["node_config"]["SecurityGroupIds"] == [group.id]
    group.reload()
    within = [rule for rule in group.ip_permissions if rule["UserIdGroupPairs"]]
    assert [(rule["IpProtocol"], rule["UserIdGroupPairs"][0]["GroupId"]) for rule in within] == [("-1", group.id)]


def test_roles_on_aws_are_rays_own_for_the_head_alone_or_those_that_are_named(aws: Any) -> None:
    own = bootstrapped(launcher("aws.yaml"))
    assert "IamInstanceProfile" not in own["available_node_types"]["worker"]["node_config"]
    named = bootstrapped(yaml.safe_load(text("aws.yaml").replace("# IamInstanceProfile:", "IamInstanceProfile:")))
    for kind, described in named["available_node_types"].items():
        assert described["node_config"]["IamInstanceProfile"]["Arn"].endswith(f":instance-profile/hpo-ray-{kind}")
    assert "IamInstanceProfile" not in named.get("head_node", {})


def test_on_aws_only_ssh_comes_in_from_outside(aws: Any) -> None:
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = bootstrapped(launcher("aws.yaml"))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for kind, described in config["available_node_types"].items():
        image = next(iter(aws.meta.client.describe_images()["Images"]))["ImageId"]  # the one there is marked CHANGE
        (number,) = provider.create_node({**described["node_config"], "ImageId": image}, {"ray-node-type": kind}, 1)
        node = aws.Instance(number)
        groups = [aws.SecurityGroup(group["GroupId"]) for group in node.security_groups]
        inward = [rule for group in groups for rule in group.ip_permissions]
        world = [rule for rule in inward if rule["IpRanges"] or rule["Ipv6Ranges"] or rule["PrefixListIds"]]
        assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in world] == [("tcp", 22, 22)]
        inner = [pair["GroupId"] for rule in inward if rule not in world for pair in rule["UserIdGroupPairs"]]
        assert set(inner) == {group.id for group in groups}
        assert node.metadata_options["HttpTokens"] == "required"
    assert config["available_node_types"]["worker"]["resources"]["GPU"] == 1
    assert config["available_node_types"]["head"]["resources"]["CPU"] == 0
