"""HTTP API and web page for a trained bundle."""

import os

# Set before PyTorch and NumPy are imported. Otherwise idle threads of OpenMP and OpenBLAS spin on
# the cores that decode photos (ANKLEALIGN_ENGINE=torch python -m benchmarks.serving, without and
# with OMP_WAIT_POLICY=PASSIVE: 13.5 and 10.3 ms of CPU per photo on 2 cores, in process). One
# product of the novelty detector, which takes 0.3 ms for 4 photos, took up to 30 ms.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
