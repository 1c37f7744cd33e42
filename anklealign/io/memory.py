"""Settings of the C library's memory allocator."""

import ctypes
import sys

# Parameters of mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Keep memory that is freed in this process, as the next photo or batch needs it again.

    glibc otherwise returns it to the system, which clears it page by page when it is allocated
    again. On 4,000 real photos in variants, this took 4 to 9 percent of the CPU time of clean and 8
    percent of that of split (two runs of each). Networks lose more (`python -m benchmarks.fusion
    --return-memory`). Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, 2**28)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
