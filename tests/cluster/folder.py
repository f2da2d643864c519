"""The files of cluster/, as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster"
LAUNCHERS = ("aws.yaml", "onprem.yaml")  # of `ray up`
MANIFESTS = ("kuberay-cluster.yaml", "kuberay-job.yaml")


def text(name: str) -> str:
    return (FOLDER / name).read_text()


def launcher(name: str) -> dict[str, Any]:
    """A cluster config of Ray's."""
    loaded = yaml.safe_load(text(name))
    assert isinstance(loaded, dict)
    return loaded


def manifests(name: str) -> dict[str, dict[str, Any]]:
    """Kubernetes objects by kind."""
    return {document["kind"]: document for document in yaml.safe_load_all(text(name))}
