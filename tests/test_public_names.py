"""What `import hpo_ray` offers, exactly, and what it must not drag in."""

from __future__ import annotations

import subprocess
import sys

import hpo_ray


def test_public_names_are_exact_sorted_and_resolvable() -> None:
    expected = [
        "Experiment",
        "HpoRayError",
        "InvalidInput",
        "Run",
        "RunFailed",
        "SearchSpace",
        "Trial",
        "confirm",
        "load_results",
        "refit",
        "resume",
        "run",
    ]
    assert hpo_ray.__all__ == expected == sorted(expected)
    for name in expected:
        assert getattr(hpo_ray, name).__name__ == name
    assert dir(hpo_ray) == sorted([*expected, "__version__"])


def test_public_names_are_documented() -> None:
    for name in hpo_ray.__all__:
        assert (getattr(hpo_ray, name).__doc__ or "").strip(), f"hpo_ray.{name} has no docstring"


def test_submodules_do_not_replace_public_names() -> None:
    code = "import hpo_ray, hpo_ray.runner, hpo_ray.api; assert callable(hpo_ray.run), hpo_ray.run"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, hpo_ray\n"
        "heavy = {'torch', 'ray', 'pandas', 'hydra', 'numpy', 'scipy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_commands_help_is_light() -> None:
    code = (
        "import sys; from hpo_ray import cli\n"
        "try:\n    cli.app(['--help'], standalone_mode=True)\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'pandas', 'hydra', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(hpo_ray, "no_such_name")
