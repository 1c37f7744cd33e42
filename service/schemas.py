"""Response schemas of the API, as OpenAPI publishes them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

PREDICTION: dict[str, Any] = {
    "predicted": "pronation",
    "probabilities": {"pronation": 0.91, "neutral": 0.08, "supination": 0.01},
    "prediction_set": ["pronation"],
    "abstain": False,
    "in_distribution": True,
    "novelty": 0.21,
    "width": 3024,
    "height": 4032,
}
MODEL_ID = "2f1c0a94be77"
MODEL_DESCRIPTION = "ID of the model that made the predictions; see GET /model for details."


class Prediction(BaseModel):
    """Prediction for one photo."""

    predicted: str | None = Field(
        description="Class with the highest probability; null if the photo is unlike the training "
        "photos and the service refuses such photos."
    )
    probabilities: dict[str, float] = Field(
        description="Calibrated probability of each class; they sum to 1."
    )
    prediction_set: list[str] = Field(
        description="The class with the highest probability, and those that the model cannot "
        "distinguish from it. On average, the set contains the true class for nine of ten photos "
        "similar to the calibration photos."
    )
    abstain: bool = Field(
        description="True if the model abstains: the prediction set contains several classes."
    )
    in_distribution: bool = Field(
        description="False if the photo does not look like the photos the model was trained on; "
        "its prediction means nothing then."
    )
    novelty: float | None = Field(
        description="How unlike the training photos the photo is, 0 to 2: mean cosine distance to "
        "the nearest ones. Null if the model was trained without a novelty detector."
    )
    width: int = Field(description="Width of the upright photo in pixels.")
    height: int = Field(description="Height of the upright photo in pixels.")


class PredictResponse(BaseModel):
    """Predictions for the photos of a request, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": MODEL_ID, "predictions": [PREDICTION]}]}
    )
    model: str = Field(description=MODEL_DESCRIPTION)
    predictions: list[Prediction]


class ExplainResponse(BaseModel):
    """Prediction for one photo, with its heat map."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": MODEL_ID,
                    "prediction": PREDICTION,
                    "seen": "data:image/png;base64,iVBORw0KGgo…",
                    "heat_map": "data:image/png;base64,iVBORw0KGgo…",
                }
            ]
        }
    )
    model: str = Field(description=MODEL_DESCRIPTION)
    prediction: Prediction
    seen: str = Field(
        description="The upright photo as the model receives it, without padding: a PNG as a "
        "data URL."
    )
    heat_map: str = Field(
        description="Evidence for the predicted class, the same size as `seen`, transparent where "
        "there is none: a PNG as a data URL."
    )


SUMMARY: dict[str, Any] = {
    "name": "ankles",
    "model": MODEL_ID,
    "title": "AnkleAlign",
    "description": "Estimates from a photo of two legs from behind how the ankles are aligned.",
    "classes": ["pronation", "neutral", "supination"],
}


class ModelSummary(BaseModel):
    """A served model."""

    model_config = ConfigDict(json_schema_extra={"examples": [SUMMARY]})
    name: str = Field(description="Value of `?model=`.")
    model: str = Field(description="First 12 hex digits of the bundle's SHA-256 hash.")
    title: str = Field(description="What the model is about, from its dataset config.")
    description: str = Field(description="One sentence on what the model does.")
    classes: list[str]


class ModelsResponse(BaseModel):
    """The served models, the default first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"models": [SUMMARY]}]})
    models: list[ModelSummary]


class ExamplesResponse(BaseModel):
    """Example photos of each class, from the dataset of a model."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": MODEL_ID,
                    "examples": {"neutral": ["data:image/jpeg;base64,/9j/4AAQSkZJRg…"]},
                }
            ]
        }
    )
    model: str = Field(description="ID of the model.")
    examples: dict[str, list[str]] = Field(
        description="JPEG photos as data URLs by class; empty unless the dataset config allows "
        "examples."
    )


class ModelResponse(ModelSummary):
    """Description of a served model."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                SUMMARY
                | {
                    "notice": "The prediction is a statistical estimate from a photo.",
                    "meanings": {"neutral": "The heel and the lower leg are nearly in line."},
                    "engine": "onnx",
                    "device": "cpu",
                    "preprocessing": {"preparation": {"size": 256}, "input": {"image_size": 96}},
                    "hashes": {"config_sha256": "2f1c0a94be77…", "weights_sha256": "9b1d…"},
                    "conformal_threshold": 0.31,
                    "record": {"chosen": {"epoch": 51}},
                    "scores": {"accuracy": {"value": 0.86, "ci_low": 0.74, "ci_high": 0.96}},
                    "card": "# Model card\n…",
                }
            ]
        }
    )
    notice: str = Field(description="What users must know, from the dataset config.")
    meanings: dict[str, str] = Field(
        description="What classes mean, from the dataset config; may be empty."
    )
    engine: str = Field(description="Inference engine: onnx or torch.")
    device: str
    preprocessing: dict[str, Any] = Field(
        description="Steps from the photo file to the network's input."
    )
    hashes: dict[str, str]
    conformal_threshold: float = Field(
        description="Minimum probability of a class in the prediction set."
    )
    record: dict[str, Any] = Field(description="Training record stored in the bundle.")
    scores: dict[str, Any] | None = Field(
        description="Content of metrics/details/evaluate.json without the scores of single "
        "annotators and collectors; null if the file does not exist or belongs to another bundle."
    )
    card: str | None = Field(
        description="Content of metrics/MODEL_CARD.md; null if the file does not exist or "
        "belongs to another bundle."
    )


class HealthResponse(BaseModel):
    """Health status of the service."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})
    status: str
