"""Prediction by trained models, outside training."""

import os

# Idle threads of PyTorch would otherwise spin on cores that other processes need. Before PyTorch's
# import. On 2 cores, evaluate took as long, and 10% less CPU time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
