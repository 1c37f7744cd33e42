"""HTTP API and web page for a trained bundle."""

import os

# Set before PyTorch is imported. Otherwise idle OpenMP threads spin on the cores that decode
# photos: 13.5 ms of CPU per photo instead of 10.3 on 2 cores, in process (ANKLEALIGN_ENGINE=torch
# python -m benchmarks.serving, without and with OMP_WAIT_POLICY=PASSIVE).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
