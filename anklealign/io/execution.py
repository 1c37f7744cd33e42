"""Map a function over shards: in threads or processes of this machine, or on a Ray cluster.

    for result in map_shards(function, shards, Resources(cpus=1)):
        ...

Results come in the order of the shards, so that neither the backend nor the number of workers nor
their timing changes an output. A shard is whatever the function takes: photos, rows, passes.

`local` is this machine. A single worker is the thread that maps. Starting a process takes about a
second of imports, so several workers are threads of this process for a few shards: Pillow, NumPy
and PyTorch release the GIL. From `SHARDS_PER_PROCESS` shards for each worker on, and without a GPU,
they are processes, those of joblib.

`ray` puts the same calls on the running cluster that `ray.init(address="auto")` finds. Ray
schedules them by their CPUs and GPUs, and repeats the call of a worker that died up to `RETRIES`
times. Each call is a task of its own: joblib's Ray backend runs tasks in actors, raises
RayActorError when one of them is killed, and returns no result before the last one. Workers read
and write the files of this folder, which must be on a file system that all nodes share, at the same
path; a node without it is an error.
"""

import contextlib
import importlib
import os
import pickle
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import joblib
from joblib.externals import loky

from anklealign.io import memory

Backend = Literal["local", "ray"]
Shard = TypeVar("Shard")
Result = TypeVar("Result")

SHARDS_PER_PROCESS = 64  # of a quarter of a second or more: the start is 5% or less
RETRIES = 3  # calls of a shard after a worker died, as in Ray's default
AHEAD = 4  # shards submitted for each worker, so that none waits while the first one is slow


@dataclass(frozen=True)
class Resources:
    """What one call takes: CPU threads, and GPUs, of which several calls can share one (0.25)."""

    cpus: int = 1
    gpus: float = 0


@dataclass(frozen=True)
class Configuration:
    """Where shards run; the fields of the parameters `execution`."""

    backend: Backend = "local"
    gpus: float = 1  # of a call whose network runs on a GPU


_execution = Configuration()
_threads = 0  # of one call; 0 in the process that maps


def configure(backend: Backend, gpus: float = 1) -> None:
    """Set where this process runs shards."""
    global _execution  # noqa: PLW0603
    _execution = Configuration(backend, gpus)


def on_cluster() -> bool:
    """Return True if shards run on a cluster, where other hosts read what a worker writes."""
    return _execution.backend == "ray"


def of_network(device: str, cpus: int) -> Resources:
    """Return what a call takes whose network runs on a type of device (cpu, cuda, mps)."""
    return Resources(cpus, 0 if device == "cpu" else _execution.gpus)


def cluster_device() -> str:
    """Return the type of device that `auto` means on the cluster."""
    return "cuda" if _cluster().cluster_resources().get("GPU") else "cpu"


def threads() -> int:
    """Return the number of threads for the photos of one call: all cores, or those of a worker."""
    return _threads or joblib.cpu_count()


def map_shards(
    function: Callable[[Shard], Result],
    shards: Iterable[Shard],
    resources: Resources = Resources(),
) -> Iterator[Result]:
    """Yield the function's results in the order of the shards, which are read as they are needed.

    Args:
        function: Of a module, or a `partial` of one; it and the shards are pickled. In threads, it
            is called several times at a time.
        shards: Its arguments.
        resources: Of one call.

    Raises:
        ValueError: The backend is not installed, or the cluster is missing, lacks the resources or
            does not see this folder.
        OSError: A worker died, on a cluster for the last of its retries.
        Exception: What the function raised; shards that have not started are left out.
    """
    open_pool = _ray_pool if on_cluster() else _local_pool
    remaining = iter(shards)
    pending: deque[Any] = deque()
    with open_pool(function, remaining, resources) as pool:
        try:
            for shard in chain(pool.first, remaining):
                pending.append(pool.submit(shard))
                if len(pending) > pool.ahead:
                    yield pool.result(pending.popleft())
            while pending:
                yield pool.result(pending.popleft())
        finally:
            if pending:  # After an error. What runs ends before the caller removes its files.
                pool.cancel(list(pending))


@dataclass(frozen=True)
class _Pool(Generic[Shard, Result]):
    """How shards are submitted, and how many are ahead of the one whose result is awaited."""

    submit: Callable[[Shard], Any]
    result: Callable[[Any], Result]
    cancel: Callable[[list[Any]], object]
    ahead: float
    first: Sequence[Shard] = ()  # that were read to choose the pool


@contextmanager
def _local_pool(
    function: Callable[[Shard], Result], shards: Iterator[Shard], resources: Resources
) -> Iterator[_Pool[Shard, Result]]:
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of torchrun, which share the cores
    workers = max(1, joblib.cpu_count() // resources.cpus // ranks)
    first = list(islice(shards, SHARDS_PER_PROCESS * workers))
    if workers == 1:
        # In this thread: another one would get memory of its own from malloc.
        yield _Pool(lambda shard: shard, function, len, 0, first)
        return
    if len(first) == SHARDS_PER_PROCESS * workers and not resources.gpus:
        executor: Executor = loky.get_reusable_executor(workers)
        content = pickle.dumps(function)

        def submit(shard: Shard) -> "Future[Result]":
            return executor.submit(_call, content, Path.cwd(), resources, None, pickle.dumps(shard))

    else:
        executor = ThreadPoolExecutor(workers)

        def submit(shard: Shard) -> "Future[Result]":
            return executor.submit(function, shard)

    def result(future: "Future[Result]") -> Result:
        try:
            return future.result()
        except BrokenProcessPool as error:
            reason = " ".join(str(error).split())[:200]
            raise OSError(
                f"a worker process died, perhaps because memory is short ({reason}); free some, "
                "and run the command again"
            ) from None

    def cancel(futures: "list[Future[Result]]") -> None:
        wait([future for future in futures if not future.cancel()])

    try:
        yield _Pool(submit, result, cancel, AHEAD * workers, first)
    finally:
        if isinstance(executor, ThreadPoolExecutor):
            executor.shutdown()


@contextmanager
def _ray_pool(
    function: Callable[[Shard], Result],
    _: Iterator[Shard],
    resources: Resources,
) -> Iterator[_Pool[Shard, Result]]:
    ray = _cluster()
    available = ray.cluster_resources()
    cpus, gpus = available.get("CPU", 0), available.get("GPU", 0)
    if cpus < resources.cpus or gpus < resources.gpus:
        raise ValueError(
            f"the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs, and a call takes "
            f"{resources.cpus} and {resources.gpus:g}; add nodes, or choose another device"
        )
    places = min(cpus / resources.cpus, gpus / resources.gpus if resources.gpus else cpus)
    task = ray.remote(_call).options(
        num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=RETRIES
    )
    shared = ray.put(pickle.dumps(function))  # sent to a node once, with weights that it may hold

    def result(reference: Any) -> Result:  # noqa: ANN401 - Ray has no stubs
        try:
            value: Result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:300]
            raise OSError(
                f"a worker on the Ray cluster died {RETRIES + 1} times: {reason}"
            ) from None
        return value

    def cancel(references: list[Any]) -> None:
        for reference in references:
            ray.cancel(reference)
        ray.wait(references, num_returns=len(references), timeout=60)

    with tempfile.NamedTemporaryFile(prefix=".shared-", dir=Path.cwd()) as mark:

        def submit(shard: Shard) -> Any:  # noqa: ANN401
            content = pickle.dumps(shard)
            return task.remote(shared, Path.cwd(), resources, Path(mark.name), content)

        yield _Pool(submit, result, cancel, AHEAD * places)


@cache
def _cluster() -> Any:  # noqa: ANN401 - Ray has no stubs
    """Return the module of Ray, connected to the running cluster."""
    try:
        ray = importlib.import_module("ray")  # an extra, which is no dependency of a stage
    except ImportError:
        raise ValueError(
            "execution.backend: ray needs Ray; install it: pip install 'anklealign[ray]'"
        ) from None
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False)
        except ConnectionError:
            raise ValueError(
                "execution.backend: ray finds no running cluster; start one with `ray start "
                "--head`, or set RAY_ADDRESS"
            ) from None
    return ray


def _call(
    function: bytes, folder: Path, resources: Resources, mark: Path | None, shard: bytes
) -> Any:  # noqa: ANN401 - what the function returns
    """Call a pickled function in a worker process, in the folder of the process that maps.

    Both are unpickled in that folder, because they name files that are relative to it.

    Raises:
        ValueError: This host does not see the folder of that process, where `mark` is a file.
    """
    global _threads  # noqa: PLW0603
    _threads = resources.cpus
    memory.keep_freed_memory()
    with contextlib.suppress(OSError):
        os.chdir(folder)
    if mark and not mark.exists():
        raise ValueError(
            f"{socket.gethostname()}, a node of the Ray cluster, does not see {folder} of the "
            "host that runs the command; put the project on a file system that all nodes mount at "
            "the same path (docs/scale.md)"
        )
    return pickle.loads(function)(pickle.loads(shard))  # noqa: S301 - from that process
