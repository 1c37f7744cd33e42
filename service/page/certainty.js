// Sentences on how certain a prediction is. They follow from what was measured on test photos.

export const percent = (probability) => {
  if (probability > 0.999 && probability < 1) return "> 99.9%";
  if (probability < 0.001 && probability > 0) return "< 0.1%";
  return `${(probability * 100).toFixed(1)}%`;
};

export const joinWithOr = (names) =>
  names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;

// What a prediction says in two words: a class, or why there is none.
export function headline({ predicted, abstain }) {
  if (!predicted) return "No prediction";
  return abstain ? "Uncertain" : predicted;
}

// `scores` are those of GET /model, or null if the model has not been evaluated.
export function reason(prediction, scores) {
  const { predicted, prediction_set: set, abstain } = prediction;
  const photos = scores?.photos;
  const measured = photos ? scores.calibration : undefined;
  if (!predicted) return "This service predicts no class for such photos.";
  if (!prediction.in_distribution) return "The probabilities say little about such a photo.";
  if (abstain) {
    const sentence = `The class may be ${joinWithOr(set)}: the model cannot distinguish them in this photo.`;
    if (!measured) return sentence;
    const covered = Math.round(measured.coverage.value * photos);
    return `${sentence} On ${covered} of ${photos} test photos, the true class was among those named.`;
  }
  if (measured?.selective_accuracy === undefined) {
    return "The model names one class. How often it is right then has not been measured.";
  }
  const answered = Math.round((1 - measured.abstention.value) * photos);
  const right = Math.round(measured.selective_accuracy * answered);
  const sentence = `The model names one class. When it did so on test photos, it was right on ${right} of ${answered}.`;
  // Without a gain, such a prediction is no surer than any other.
  const gain = measured.selective_gain?.ci_low ?? measured.selective_gain?.value ?? 0;
  if (gain > 0 || answered === photos) return sentence;
  return `${sentence} That is not clearly better than on all ${photos} test photos (${percent(scores.accuracy.value)}).`;
}
