"""A trained bundle that each process loads once, for shards that run in several processes.

Shards name the bundle's folder and carry no weights (io/execution.py).
"""

from dataclasses import dataclass
from pathlib import Path

from anklealign.inference.predictor import Predictor
from anklealign.models import inputs, novelty


@dataclass(frozen=True)
class PredictorSource:
    """Where any process gets the same predictor from.

    Attributes:
        folder: Absolute path of the bundle.
        sha256: Hash of the bundle, so that a process that outlives it loads the new one.
        device: As in `inputs.pick_device`.
        threads: CPU threads of the networks.
    """

    folder: Path
    sha256: str
    device: str
    threads: int

    def predictor(self) -> Predictor:
        """Return the predictor of this process, which loads it if none is kept.

        Raises:
            ValueError: The folder contains no valid bundle, or the device does not exist.
        """
        inputs.configure_cpu(self.threads)
        return _KEPT.get(self) or self.keep(Predictor.load(self.folder, self.device))

    def keep(self, predictor: Predictor) -> Predictor:
        """Make it the predictor of this process, and load what its first prediction would.

        The process that starts threads keeps its own before, as two of them would load two.
        """
        inputs.configure_cpu(self.threads)
        _ = predictor.for_inference
        if predictor.bundle.novelty is not None:
            novelty.general_network(str(predictor.device))
        _KEPT.clear()
        _KEPT[self] = predictor
        return predictor


_KEPT: dict[PredictorSource, Predictor] = {}  # of this process, at most one
