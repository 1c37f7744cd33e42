"""The API and the page over a trained bundle."""

import os

# Before PyTorch is imported, whose threads would else wait busily for work on the cores that decode
# photos: 13.5 ms of CPU a photo in place of 10.3 on 2 cores, in process (ANKLEALIGN_ENGINE=torch
# python -m benchmarks.serving, without OMP_WAIT_POLICY=PASSIVE and with it).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
