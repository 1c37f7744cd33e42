"""Push the outputs of the last run and DVC's run cache, with which a clone repeats no stage.

    anklealign push                      # then, in another clone: dvc exp run --pull -S …

`dvc push` leaves out outputs with `cache: false`, the metrics and tables in git, although DVC's run
cache restores a stage only with all its outputs: `Output.get_used_objs` returns none of them, and
`repo/push.py` sends the run cache's entries without their outputs. This command adds them.
"""

import sys

from dvc.exceptions import DvcException
from dvc.repo import Repo

from anklealign.ingest.wording import counted


def push_results() -> int:
    """Push to the default remote; return the exit status, 1 on an error."""
    try:
        with Repo() as repo:
            pushed = repo.push(run_cache=True)
            results = [
                out.hash_info
                for stage in repo.index.stages
                for out in stage.outs
                if not out.use_cache
                and out.hash_info
                and repo.cache.local.exists(out.hash_info.value)
            ]
            pushed += len(repo.cloud.push(results).transferred)
    except (DvcException, OSError) as error:
        print(f"push: {error}", file=sys.stderr)
        return 1
    print(f"push: {counted(pushed, 'file', 'files')} pushed")
    return 0
