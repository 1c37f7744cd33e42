"""The API and the page over a trained bundle."""

import os

# Before PyTorch is imported, whose threads would else wait busily for work on the cores that decode
# photos: twice the CPU time a photo (benchmarks.serving with ANKLEALIGN_ENGINE=torch, 2 cores).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
