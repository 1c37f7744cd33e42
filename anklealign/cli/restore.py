"""Restore the results of a revision: data, model, metrics and plots, all of one run.

    anklealign restore                   # of the last commit
    anklealign restore my-experiment

Restores dvc.lock, metrics/ and plots/ from git, and the outputs that dvc.lock lists from DVC's
cache, or from its remote if they are not cached. Changes no parameter, no code and no raw photo:
where these differ from the revision, the command says so.
"""

import subprocess
import sys
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import RevError, resolve_rev
from ruamel.yaml import YAML

from anklealign.config import paths
from anklealign.io.results import STAGES, read_results

LOCK = "dvc.lock"
RESULTS = (LOCK, "metrics", "plots")
INPUTS = ("params.yaml", "dvc.yaml", "anklealign", "stages", "data/raw")


def restore_results(revision: str) -> int:
    """Restore the results of a revision; return the exit status, 1 on an error."""
    try:
        with Repo() as repo:
            commit = resolve_rev(repo.scm, revision)
        _restore_files(revision, commit)
        _checkout()
        read_results()
    except (RevError, DvcException, ValueError, OSError) as error:
        print(f"restore: {error}", file=sys.stderr)
        return 1
    print(f"restore: model, metrics and plots are those of {revision} ({commit[:7]})")
    if changed := _git("diff", "--relative", "--name-only", commit, "--", *INPUTS):
        names = sorted({name.split("/")[0] if "/" in name else name for name in changed})
        print(
            f"restore: changed since {revision}: {', '.join(names)}; the next `dvc repro` may run "
            "stages again"
        )
    return 0


def _restore_files(revision: str, commit: str) -> None:
    """Restore what git has of the results.

    Raises:
        ValueError: The pipeline had not run in the revision, or it is older than these results.
    """
    tracked = set(_git("ls-tree", "--name-only", commit, *RESULTS))
    if LOCK not in tracked:
        raise ValueError(f"{revision} has no {LOCK}: the pipeline had not run there")
    details = {f"{paths.DETAILS.as_posix()}/{stage}.json" for stage in STAGES}
    if not details <= set(_git("ls-tree", "-r", "--name-only", commit, *RESULTS)):
        raise ValueError(
            f"{revision} has no {paths.DETAILS}/: it is older than this layout of results; nothing "
            "was changed"
        )
    _git("restore", f"--source={commit}", "--worktree", "--", *sorted(tracked))


def _checkout() -> None:
    """Check out the outputs of all stages, from the remote if they are not cached.

    Raises:
        ValueError: An output is neither cached nor in the remote.
    """
    stages = list(YAML(typ="safe", pure=True).load(Path("dvc.yaml"))["stages"])
    with Repo() as repo:
        # --force: a failed stage leaves partial outputs, which are in no cache.
        try:
            repo.checkout(targets=stages, force=True)
        except DvcException:
            if not repo.config["remote"]:
                raise ValueError(
                    "some outputs are not in DVC's cache and no remote is configured; run "
                    "`dvc repro` to compute them again"
                ) from None
            _pull(repo, stages)


def _pull(repo: Repo, stages: list[str]) -> None:
    """Fetch the outputs of the stages and check them out.

    Raises:
        ValueError: An output is not in the remote.
    """
    try:
        repo.fetch(targets=stages)
        repo.checkout(targets=stages, force=True)
    except DvcException as error:
        raise ValueError(
            f"some outputs are in neither DVC's cache nor its remote ({error}); run `dvc push` "
            "on the machine that has them, or `dvc repro` to compute them again"
        ) from None


def _git(*arguments: str) -> list[str]:
    """Run git and return the lines that it prints.

    Raises:
        ValueError: git fails.
    """
    done = subprocess.run(  # noqa: S603 - fixed commands
        ["git", *arguments],  # noqa: S607 - from PATH, as DVC does
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ValueError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.splitlines()
