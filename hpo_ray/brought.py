"""What a run that came from a URI does not decide here: which cluster is joined, and so is sent the user's token.

Knows a resolved experiment's plain data, and where its run came from; joins nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpo_ray.storage import holding


def unjoined(run_dir: Path, data: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], str]:
    """An experiment without the cluster that only a journal from elsewhere names.

    Args:
        run_dir: The run's folder.
        data: What its journal says.
        overrides: What the user says: ``ray.address=…`` among them decides.

    Returns:
        The experiment, on this machine if so; and what to say of that, else nothing.
    """
    ray = data.get("ray")
    given = any(text.partition("=")[0].strip().lstrip("+") == "ray.address" for text in overrides)
    named = ray.get("address") if isinstance(ray, dict) else None
    if given or named is None or not holding.is_brought(run_dir):
        return data, ""
    named = str(named)[:80]
    why = f"{named!r} is what the journal names, which came from a URI: it is not joined, which would send your token"
    return {**data, "ray": {**data["ray"], "address": None}}, f"{why}; ray.address={named} joins it"
