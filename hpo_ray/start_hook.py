"""What a cluster's `ray start` runs first, where ``RAY_START_HOOK=hpo_ray.start_hook.closed`` says so.

Knows the one setting that Ray (2.60) has no option for, nothing of a run.
"""

from __future__ import annotations

from typing import Any


def closed(parameters: Any, head: bool) -> None:
    """Leave out the Ray Client's port, 10001: a second way in, which nothing here uses.

    Ray opens it on every head that has grpcio, as `ray[default]` does, and refuses 0 as its number.

    Args:
        parameters: Ray's `RayParams`, as its command line made them; changed in place.
        head: Whether the head is being started.
    """
    parameters.ray_client_server_port = None
