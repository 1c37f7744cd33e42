// The model in this browser, with the functions of the service's backend.js. Only the files of this
// page are requested; photos are never sent.

import * as ort from "./ort/ort.min.mjs";
import { decode, fit, toInput } from "./pixels.js";

export const privacy = "Photos are processed in this browser and never leave your device.";
export const hasApi = false;
export const hasKey = () => false;

const FOLDER = new URL("../model/", import.meta.url);
const DECIMALS = 6; // of novelty scores, as in anklealign/models/novelty.py

ort.env.wasm.wasmPaths = { wasm: new URL("./ort/ort-wasm-simd-threaded.wasm", import.meta.url).href };
ort.env.wasm.numThreads = 1; // more need headers that few web spaces send

// Everything is fetched at once, so that the page works without a network from then on.
const loaded = load();
loaded.catch(() => {}); // each function reports it

async function load() {
  const description = JSON.parse(new TextDecoder().decode(await get("model.json")));
  const session = await ort.InferenceSession.create(await get("model.onnx"));
  if (!description.novelty) return { ...description, session };
  const [network, references] = await Promise.all([get("novelty.onnx"), get("novelty.bin")]);
  return {
    ...description,
    session,
    noveltySession: await ort.InferenceSession.create(network),
    references: halfFloats(references),
  };
}

async function get(name) {
  const response = await fetch(new URL(name, FOLDER)).catch(() => null);
  if (!response?.ok) throw new Error(`The file model/${name} cannot be loaded. Reload the page to try again.`);
  return new Uint8Array(await response.arrayBuffer());
}

export const models = async () => [(await loaded).model];
export const describe = async () => (await loaded).model;
export const examples = async () => (await loaded).examples;

export async function explain(_, photo) {
  const { model } = await loaded;
  const { preparation } = model.preprocessing;
  const pixels = await decode(photo, preparation.max_megapixels);
  const [square, box] = fit(pixels, preparation);
  return { prediction: await classify(square, pixels), seen: dataUrl(square, box), heat_map: null };
}

export async function predict(_, photo) {
  return (await explain(_, photo)).prediction;
}

async function classify(square, { width, height }) {
  const { model, session, novelty } = await loaded;
  const row = await run(session, square, model.preprocessing.input, "class_probabilities");
  const best = row.indexOf(Math.max(...row));
  const set = model.classes.filter((_, k) => k === best || row[k] >= model.conformal_threshold);
  const score = novelty ? await noveltyScore(square) : null;
  return {
    predicted: model.classes[best],
    probabilities: Object.fromEntries(model.classes.map((name, k) => [name, row[k]])),
    prediction_set: set,
    abstain: set.length > 1,
    in_distribution: score === null || score <= novelty.threshold,
    novelty: score,
    width,
    height,
  };
}

async function run(session, square, input, output) {
  const side = input.image_size;
  const tensor = new ort.Tensor("float32", toInput(square, input), [1, input.mean.length, side, side]);
  const outputs = await session.run({ normalized_photos: tensor }, [output]);
  return [...outputs[output].data];
}

// Returns the mean cosine distance to the nearest training photos.
async function noveltyScore(square) {
  const { noveltySession, references, novelty } = await loaded;
  const features = await run(noveltySession, square, novelty.input, "class_logits");
  const length = Math.hypot(...features);
  const similarities = [];
  for (let start = 0; start < references.length; start += features.length) {
    let sum = 0;
    for (let k = 0; k < features.length; k += 1) sum += references[start + k] * features[k];
    similarities.push(sum / length);
  }
  const nearest = similarities.sort((a, b) => b - a).slice(0, novelty.neighbors);
  const score = 1 - nearest.reduce((sum, value) => sum + value, 0) / nearest.length;
  return Number(score.toFixed(DECIMALS));
}

// Returns the numbers of little-endian half floats.
function halfFloats(bytes) {
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  return Float32Array.from(halves, (half) => {
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  });
}

// Returns the photo as the model receives it, without letterbox.
function dataUrl({ data, width }, [left, top, w, h]) {
  const image = new ImageData(w, h);
  for (let y = 0; y < h; y += 1) {
    for (let x = 0; x < w; x += 1) {
      const from = ((top + y) * width + left + x) * 3;
      image.data.set([data[from], data[from + 1], data[from + 2], 255], (y * w + x) * 4);
    }
  }
  const canvas = document.createElement("canvas");
  canvas.width = w;
  canvas.height = h;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas.toDataURL("image/png");
}
