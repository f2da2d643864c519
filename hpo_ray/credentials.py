"""The variables that a storage's keys are in: given to trials' processes as data, kept out of what Ray writes down.

Knows Tune's list of variables that it passes on; nothing of storages.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

SECRET = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
# What goes with them: keys are good for nothing at another place.
BESIDE = ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION")


def of_driver() -> dict[str, str]:
    """The keys in this process's environment, with what goes with them; empty if there are none."""
    names = (*SECRET, *BESIDE) if any(name in os.environ for name in SECRET) else ()
    return {name: os.environ[name] for name in names if name in os.environ}


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Inside, Tune doesn't pass the keys on by itself, which Ray writes into a log that everyone may read (2.60)."""
    from ray.tune.execution import class_cache

    passed_on = class_cache.ENV_VARS_TO_PROPAGATE
    hidden = passed_on & set(SECRET)
    passed_on.difference_update(hidden)
    try:
        yield
    finally:
        passed_on.update(hidden)
