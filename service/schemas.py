"""What the API answers, as OpenAPI describes it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

PREDICTION: dict[str, Any] = {
    "predicted": "pronation",
    "probabilities": {"pronation": 0.91, "neutral": 0.08, "supination": 0.01},
    "prediction_set": ["pronation"],
    "abstain": False,
    "width": 3024,
    "height": 4032,
}
MODEL_ID = "2f1c0a94be77"


class Prediction(BaseModel):
    """What the model says of one photo."""

    predicted: str = Field(description="The most probable class.")
    probabilities: dict[str, float] = Field(
        description="Calibrated; over all classes they sum to 1."
    )
    prediction_set: list[str] = Field(
        description="The classes that cannot be ruled out: the truth is among them for nine of ten "
        "photos like those that the model was calibrated on."
    )
    abstain: bool = Field(
        description="Whether the model had better not be asked: the set does not hold exactly one "
        "class."
    )
    width: int = Field(description="Of the upright photo, in pixels.")
    height: int = Field(description="Of the upright photo, in pixels.")


class Predictions(BaseModel):
    """The answer to photos, in the order in which they came."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": MODEL_ID, "predictions": [PREDICTION]}]}
    )
    model: str = Field(description="The id of the model that answered; GET /model tells more.")
    predictions: list[Prediction]


class Explanation(BaseModel):
    """A prediction, and where in the photo the model looked for it."""

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
    model: str = Field(description="The id of the model that answered; GET /model tells more.")
    prediction: Prediction
    seen: str = Field(description="The photo as the model sees it, upright: a PNG as data URL.")
    heat_map: str = Field(
        description="What speaks for the predicted class, as large as `seen`, clear where nothing "
        "does: a PNG as data URL."
    )


class Model(BaseModel):
    """The model that answers."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": MODEL_ID,
                    "classes": ["pronation", "neutral", "supination"],
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
    model: str = Field(description="The first 12 hex digits of the bundle's hash.")
    classes: list[str]
    engine: str = Field(description="onnx or torch.")
    device: str
    preprocessing: dict[str, Any] = Field(description="From photo file to the network's input.")
    hashes: dict[str, str]
    conformal_threshold: float = Field(
        description="The probability from which on a class is in the prediction set."
    )
    record: dict[str, Any] = Field(description="Where the model comes from, as its bundle tells.")
    scores: dict[str, Any] | None = Field(description="metrics/evaluate.json, where it is there.")
    card: str | None = Field(description="metrics/MODEL_CARD.md, where it is there.")


class Health(BaseModel):
    """How the service is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})
    status: str
