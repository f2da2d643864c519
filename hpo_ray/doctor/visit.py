"""A preflight from its arguments to its findings: the experiment's paths and needs, the nodes' facts, the judgement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from hpo_ray import config, lr_range
from hpo_ray.doctor import gather
from hpo_ray.doctor.findings import Finding
from hpo_ray.doctor.judge import judge
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.preflight import check_address
from hpo_ray.session import ray_session
from hpo_ray.storage.address import is_uri, problem_of


def visit(
    overrides: Sequence[str], address: str | None, storage: str | None, config_dir: Path | None
) -> tuple[list[Finding], dict[str, Any]]:
    """Look at a cluster, or at this machine.

    Args:
        overrides: Of an experiment whose data, weights and needs are to be looked at; none: only the machines.
        address: ``auto`` or ``host:port``; None: what ``ray.address`` among the overrides says, or else this machine
            alone, and no Ray is started.
        storage: Where run directories are to lie: a folder or a URI; None: the experiment's `storage.uri`, or ``runs``.
        config_dir: The user's own choices.

    Returns:
        The findings, and the facts that they rest on.

    Raises:
        InvalidInput: The experiment, the address or the storage is wrong, or the cluster cannot be joined.
    """
    overrides, address = _addressed(overrides, address)
    paths, needs, uri = _asked(overrides, address, config_dir)
    place = _placed(storage, uri)
    if address is None:
        seen = {**gather.here(paths, place), "door": None, "needs": needs}
        return judge(seen), seen
    problems: list[Problem] = []
    check_address(address, problems)
    if problems:
        raise InvalidInput(*(Problem("--address", problem.message) for problem in problems))
    door = gather.knock(address)
    try:
        with ray_session(address=address, cpus=0, gpus=0, authenticated=not door["open"]):
            import ray

            head = str(ray.get_runtime_context().gcs_address)
            seen = {**gather.cluster(head, paths, place), "door": door, "needs": needs}
    except InvalidInput as error:
        raise InvalidInput(*(Problem("--address", problem.message) for problem in error.problems)) from None
    return judge(seen), seen


def _addressed(overrides: Sequence[str], address: str | None) -> tuple[list[str], str | None]:
    """The overrides that are the experiment's own, and the cluster's address."""
    said = {"ray=cluster": "auto"}
    for text in overrides:
        key, _, value = text.partition("=")
        if key == "ray.address":
            said[text] = value.strip()
    given = [said[text] for text in overrides if text in said]
    return [text for text in overrides if text not in said], address or (given[-1] if given else None)


def _placed(storage: str | None, uri: str | None) -> str:
    """The storage to look at."""
    place = storage or uri or "runs"
    if is_uri(place):
        if wrong := problem_of(place):
            raise InvalidInput(Problem("--storage" if storage else "storage.uri", wrong))
        if not place.startswith("file:"):
            return place
        place = unquote(urlsplit(place).path)
    return str(Path(place).expanduser().absolute())


def _asked(
    overrides: Sequence[str], address: str | None, config_dir: Path | None
) -> tuple[dict[str, str], dict[str, float] | None, str | None]:
    """What an experiment's trials read, how much one needs, and the URI that it is kept at."""
    if not overrides and config_dir is None:
        return {}, None, None
    document = config.load(overrides, config_dir)
    if address is not None:
        document.data["ray"] = {"address": "auto"}  # its size is the cluster's to know
    experiment = lr_range.checked(document)
    paths = {}
    if experiment.data is not None and experiment.data.root:
        paths["data.root"] = str(experiment.data.root)
    weights = experiment.model.weights if experiment.model is not None else None
    if weights and weights != "default":
        paths["model.weights"] = str(weights)
    target = (experiment.trainable.target or "").rpartition(":")[0]
    if target.endswith(".py"):
        paths["trainable.target"] = str(Path(target).parent)
    need = experiment.resources
    needs = {"cpus": need.cpus_per_trial, "gpus": need.gpus_per_trial, "workers": need.workers_per_trial}
    return paths, needs, experiment.storage.uri
