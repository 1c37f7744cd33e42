// The page: shows predictions and heat maps of photos, by one model or by several side by side.

import * as backend from "./backend.js";
import { headline, percent, reason } from "./certainty.js";
import { toCsv } from "./csv.js";
import { element, renderMarkdown } from "./markdown.js";
import { snippets } from "./snippets.js";

const $ = (id) => document.getElementById(id);
const ALL = ""; // value of the choice of all models; no model has this name
const THUMBNAIL = 96; // px, longer side; twice the size on the page
const PARALLEL = 2; // photos of a table that are sent at a time

let models = []; // descriptions of all models
let latestRequest = 0; // only the response to the latest request is shown
let latestBatch = 0;
let current = null; // the photo that is shown, and its name
let explanations = []; // of the current photo, one for each chosen model
let photoUrl = null; // object URL of the current photo; released with the next one
let batch = []; // rows of the table

const chosen = () => ($("model").value === ALL ? models : models.filter((m) => m.name === $("model").value));

// --- one photo --------------------------------------------------------------------------------

async function classify(photo, name, { quiet = false } = {}) {
  const request = ++latestRequest;
  current = { photo, name };
  explanations = [];
  showPhoto(photo, name);
  $("waiting").textContent = $("announcement").textContent = "Analyzing the photo …";
  $("waiting").hidden = false;
  $("problem").hidden = $("result").hidden = true;
  document.body.classList.add("waiting");
  const shown = chosen();
  let found;
  try {
    // One after another: a client has few requests at a time.
    found = [];
    for (const model of shown) found.push(await backend.explain(model.name, photo));
  } catch (error) {
    if (request === latestRequest) showProblem(error.message, quiet);
    return;
  } finally {
    if (request === latestRequest) document.body.classList.remove("waiting");
  }
  if (request === latestRequest) await showPredictions(shown, found, quiet);
}

function showPhoto(photo, name) {
  if (photoUrl) URL.revokeObjectURL(photoUrl);
  photoUrl = URL.createObjectURL(photo);
  $("heat").hidden = $("slider").hidden = true;
  $("photo").alt = name;
  $("photo").onload = () => {
    $("stack").style.setProperty("--ratio", $("photo").naturalWidth / $("photo").naturalHeight);
  };
  // If the browser cannot show the format (HEIC), showHeat() shows the model input instead.
  $("photo").onerror = () => { $("shown").hidden = true; };
  $("photo").src = photoUrl;
  $("shown").hidden = false;
}

async function showPredictions(shown, found, quiet) {
  explanations = found;
  $("waiting").hidden = true;
  const several = shown.length > 1;
  const outcomes = shown.map((model, index) => outcome(model, found[index].prediction, several));
  $("result").replaceChildren(...outcomes);
  $("result").classList.toggle("several", several);
  $("result").hidden = false;
  $("heat-choice").hidden = !several;
  $("heat-model").replaceChildren(...shown.map((model, index) => new Option(model.title, index)));
  await showHeat(0);
  $("announcement").textContent = outcomes.map((node) =>
    [".model-name", ".unlike:not([hidden])", ".predicted", ".reason"]
      .map((part) => node.querySelector(part)?.textContent.trim().replace(/\s+/g, " ").replace(/\.$/, ""))
      .filter(Boolean).map((text) => `${text}.`).join(" ")).join(" ");
  if (!quiet) reveal();
}

// Returns the block of one model's prediction.
function outcome(model, prediction, several) {
  const node = $("result-template").content.cloneNode(true).firstElementChild;
  const part = (selector) => node.querySelector(selector);
  part(".model-name").textContent = several ? model.title : "";
  part(".model-name").hidden = !several;
  part(".unlike").hidden = prediction.in_distribution;
  part(".predicted").textContent = headline(prediction);
  part(".predicted").classList.toggle("abstained", prediction.abstain);
  part(".reason").textContent = reason(prediction, model.scores);
  const { probabilities, predicted } = prediction;
  let ranked = Object.entries(probabilities);
  if (ranked.length > 10) ranked = ranked.sort((a, b) => b[1] - a[1]).slice(0, 10);
  if (ranked.length < model.classes.length) {
    part(".bars-title").textContent = `The most probable of ${model.classes.length} classes`;
  }
  part(".bars").replaceChildren(...ranked.map(([name, probability]) => {
    const row = element("li", "", name === predicted ? "first" : "");
    const track = element("span", "", "track");
    const fill = element("span", "", "fill");
    fill.style.width = `${probability * 100}%`;
    track.append(fill);
    track.setAttribute("aria-hidden", "true");
    row.append(element("span", name, "name"), track, element("span", percent(probability), "value"));
    return row;
  }));
  return node;
}

async function showHeat(index) {
  const { seen, heat_map: heat, prediction } = explanations[index];
  if (!seen) return;
  const photo = $("photo");
  const view = new Image();
  view.src = seen;
  await Promise.all([view.decode(), photo.decode().catch(() => {})]);
  // The heat map matches the model input. Some browsers show the photo rotated, or not at all, and
  // a model may see a part of the photo.
  const logRatio = (image) => Math.log(image.naturalWidth / image.naturalHeight);
  if (!photo.naturalWidth || !(Math.abs(logRatio(photo) - logRatio(view)) < 0.03)) photo.src = seen;
  await photo.decode();
  const best = Object.entries(prediction.probabilities).reduce((a, b) => (b[1] > a[1] ? b : a))[0];
  $("shown").hidden = false;
  if (!heat) return;
  $("heat").src = heat;
  $("heat").alt = `Heat map of the evidence for ${best}`;
  $("heat-class").textContent = best;
  $("heat").hidden = $("slider").hidden = false;
  fade();
}

function fade() {
  $("heat").style.opacity = $("strength").value / 100;
  $("strength-value").textContent = `${$("strength").value}%`;
}

function showProblem(message, quiet = false) {
  $("waiting").hidden = true;
  $("shown").hidden = true;
  $("problem").textContent = message;
  $("problem").hidden = false;
  if (!quiet) reveal();
}

function reveal() {
  // Move the focus of keyboards and screen readers to the result; on a phone, scroll to the photo.
  $("output-title").focus({ preventScroll: true });
  const target = matchMedia("(max-width: 50rem)").matches && !$("shown").hidden ? "shown" : "main";
  $(target).scrollIntoView({ block: "start" });
}

// --- several photos ---------------------------------------------------------------------------

async function classifyAll(files) {
  const run = ++latestBatch;
  batch = files.map((file) => ({ file, name: file.name || "Pasted photo", results: null }));
  const shown = chosen();
  showTable(shown);
  $("batch").hidden = false;
  classify(files[0], batch[0].name);
  const waiting = [...batch];
  const work = async () => {
    while (waiting.length && run === latestBatch) {
      const row = waiting.shift();
      row.results = await predictions(row.file, shown);
      if (run !== latestBatch) return;
      showRow(row, shown);
      showSummary();
      await showThumbnail(row);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, work));
}

// Returns {prediction} or {reason} of a photo for each model.
async function predictions(file, shown) {
  const results = [];
  for (const model of shown) {
    try {
      results.push({ prediction: await backend.predict(model.name, file) });
    } catch (error) {
      results.push({ reason: error.message });
    }
  }
  return results;
}

function showTable(shown) {
  const head = element("tr");
  const titles = shown.length > 1 ? shown.map((model) => model.title) : ["Prediction", "Probability", "Note"];
  for (const title of ["Photo", ...titles]) {
    const cell = element("th", title, title === "Probability" ? "number" : "");
    cell.scope = "col";
    head.append(cell);
  }
  $("photos").tHead.replaceChildren(head);
  $("photos").tBodies[0].replaceChildren(...batch.map((row) => {
    row.node = element("tr");
    row.button = element("button", "", "row");
    row.button.type = "button";
    row.image = element("span", "", "thumbnail");
    row.button.append(row.image, element("span", row.name));
    row.button.addEventListener("click", () => classify(row.file, row.name));
    showRow(row, shown);
    return row.node;
  }));
  showSummary();
}

function showRow(row, shown) {
  const first = element("th");
  first.scope = "row";
  first.append(row.button);
  const cells = [];
  const cell = (text, className = "") => { cells.push(element("td", text, className)); return cells.at(-1); };
  if (!row.results) {
    cell("waiting …", "hint").colSpan = shown.length > 1 ? shown.length : 3;
  } else if (shown.length > 1) {
    for (const { prediction, reason: problem } of row.results) {
      if (problem) cell(problem, "error");
      else cell(`${headline(prediction)}${probabilityOf(prediction)}${note(prediction)}`, style(prediction));
    }
  } else {
    const [{ prediction, reason: problem }] = row.results;
    if (problem) cell(problem, "error").colSpan = 3;
    else {
      cell(headline(prediction), style(prediction));
      cell(percent(Math.max(...Object.values(prediction.probabilities))), "number");
      cell(note(prediction).replace(/^, /, ""), "hint");
    }
  }
  row.node.replaceChildren(first, ...cells);
}

const style = ({ abstain, in_distribution: known }) => (abstain || !known ? "doubtful" : "sure");
const probabilityOf = ({ abstain, predicted, probabilities }) =>
  (abstain || !predicted ? "" : ` ${percent(probabilities[predicted])}`);
const note = ({ abstain, predicted, prediction_set: set, in_distribution: known }) =>
  [abstain && predicted && set.join(" or "), !known && "unlike the training photos"]
    .filter(Boolean).map((text) => `, ${text}`).join("");

function showSummary() {
  const done = batch.filter((row) => row.results);
  const results = done.flatMap((row) => row.results);
  const counts = new Map();
  for (const { prediction } of results) {
    const name = prediction ? headline(prediction) : "not readable";
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const unlike = results.filter((each) => each.prediction && !each.prediction.in_distribution).length;
  const listed = [...counts].map(([name, count]) => `${name} ${count}`).join(", ");
  $("summary").textContent = done.length < batch.length
    ? `${done.length} of ${batch.length} photos …`
    : `${batch.length} photos: ${listed}${unlike ? `; ${unlike} unlike the training photos` : ""}.`;
  $("download").disabled = done.length < batch.length;
  if (batch.length && done.length === batch.length) $("announcement").textContent = $("summary").textContent;
}

async function showThumbnail(row) {
  try {
    const image = await createImageBitmap(row.file);
    const scale = THUMBNAIL / Math.max(image.width, image.height);
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(image.width * scale));
    canvas.height = Math.max(1, Math.round(image.height * scale));
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    image.close();
    row.image.append(canvas);
  } catch {
    // A format that the browser cannot show has no thumbnail.
  }
}

$("download").addEventListener("click", () => {
  const shown = chosen();
  const rows = batch.flatMap(({ name, results }) => results.map((result, index) => (
    { path: name, model: shown[index].name, reason: "", ...result })));
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([toCsv(rows)], { type: "text/csv" }));
  link.download = "predictions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
});

$("clear").addEventListener("click", () => {
  clearTable();
  latestRequest += 1;
  $("shown").hidden = $("result").hidden = $("problem").hidden = true;
  document.body.classList.remove("waiting");
  $("waiting").textContent = "No photo.";
  $("waiting").hidden = false;
  current = null;
  $("file").focus();
});

function clearTable() {
  latestBatch += 1;
  batch = [];
  $("batch").hidden = true;
}

// --- photo sources --------------------------------------------------------------------------

function submit(files, name) {
  const photos = [...files];
  if (photos.length > 1) classifyAll(photos);
  if (photos.length !== 1) return;
  clearTable();
  classify(photos[0], name ?? photos[0].name ?? "Your photo");
}

for (const id of ["file", "capture"]) {
  $(id).addEventListener("change", (event) => {
    submit(event.target.files);
    event.target.value = ""; // allows choosing the same file again
  });
}
$("strength").addEventListener("input", fade);
$("heat-model").addEventListener("change", () => showHeat(Number($("heat-model").value)));

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  submit(event.dataTransfer.files);
});
addEventListener("paste", (event) => submit(event.clipboardData.files));

let stream = null;

$("camera").addEventListener("click", async () => {
  // getUserMedia requires https or localhost; the file input opens a phone's camera app everywhere.
  if (!navigator.mediaDevices?.getUserMedia) return $("capture").click();
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } },
    });
  } catch {
    return showProblem("The camera is unavailable, or the browser has no permission to use it.");
  }
  $("viewfinder").showModal();
  $("video").srcObject = stream;
  await $("video").play();
});
$("shoot").addEventListener("click", () => {
  const canvas = document.createElement("canvas");
  canvas.width = $("video").videoWidth;
  canvas.height = $("video").videoHeight;
  canvas.getContext("2d").drawImage($("video"), 0, 0);
  $("viewfinder").close();
  canvas.toBlob((photo) => submit([photo], "Camera photo"), "image/jpeg", 0.92);
});
$("cancel").addEventListener("click", () => $("viewfinder").close());
$("viewfinder").addEventListener("close", () => {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
});

// --- the models -------------------------------------------------------------------------------

async function start() {
  $("privacy").textContent = backend.privacy;
  const summaries = await backend.models();
  models = await Promise.all(summaries.map(({ name }) => backend.describe(name)));
  $("model").replaceChildren(...models.map(({ name, title }) => new Option(
    models.filter((other) => other.title === title).length > 1 ? `${title} (${name})` : title, name)));
  if (models.length > 1) {
    $("model").add(new Option("All models, side by side", ALL));
    $("choice").hidden = false;
  }
  await showModel();
}

async function showModel() {
  const shown = chosen();
  const [model] = shown;
  const several = shown.length > 1;
  document.title = $("title").textContent = several ? shown.map((m) => m.title).join(" · ") : model.title;
  $("description").textContent = several
    ? "Several models classify the same photos, side by side." : model.description;
  $("notice").textContent = [...new Set(shown.map((m) => m.notice))].join(" ");
  $("facts").replaceChildren(...shown.flatMap((each) => facts(each, several)));
  $("card").hidden = several || !model.card;
  if (!$("card").hidden) $("card-text").replaceChildren(...renderMarkdown(model.card));
  if (backend.hasApi) showSnippets(several ? model : shown[0]);
  await showClasses(shown);
}

function facts(model, several) {
  const rows = [["Classes", model.classes.join(", ")], ["Model ID", model.model]];
  if (several) rows.unshift(["Model", model.title]);
  const accuracy = model.scores?.balanced_accuracy;
  if (accuracy) {
    // With few test groups there is no confidence interval.
    const interval = accuracy.ci_low === undefined
      ? "" : `; 95% CI ${accuracy.ci_low.toFixed(2)} to ${accuracy.ci_high.toFixed(2)}`;
    rows.push([
      "Balanced accuracy",
      `${accuracy.value.toFixed(2)} on ${model.scores.photos} test photos${interval}`,
    ]);
  } else {
    rows.push(["Balanced accuracy", "not measured for this model"]);
  }
  return rows.flatMap(([name, value]) => [element("dt", name), element("dd", value)]);
}

function showSnippets(model) {
  const base = new URL(".", location.href).href.replace(/\/$/, "");
  const name = model === models[0] ? "" : model.name;
  const programs = snippets(base, name, backend.hasKey());
  $("api-examples").replaceChildren(...programs.flatMap(([language, text]) => {
    const code = element("pre");
    code.tabIndex = 0;
    code.append(element("code", text));
    return [element("h3", language), code];
  }));
  $("api").hidden = false;
}

async function showClasses(shown) {
  const examples = await Promise.all(shown.map(({ name }) => backend.examples(name).catch(() => ({}))));
  const rows = shown.flatMap((model, index) => model.classes
    .map((name) => classRow(name, model.meanings[name], examples[index][name] ?? [],
      shown.length > 1 ? model.title : ""))
    .filter(Boolean));
  $("meanings").querySelector("ul").replaceChildren(...rows);
  $("meanings").hidden = rows.length === 0;
  const any = examples.some((each) => Object.values(each).some((photos) => photos.length));
  $("or-example").hidden = $("examples-hint").hidden = !any;
}

function classRow(name, meaning, photos, title) {
  if (!meaning && !photos.length) return null;
  const row = element("li");
  row.append(element("h3", name));
  if (title) row.append(element("p", title));
  if (photos.length) {
    const images = element("div", "", "examples");
    images.append(...photos.map((url, number) => {
      const button = element("button", "", "example");
      const image = new Image();
      button.type = "button";
      image.src = url;
      image.alt = `Try the example photo of ${name}${photos.length > 1 ? `, number ${number + 1}` : ""}`;
      button.append(image);
      button.addEventListener("click", () => submit([blobOf(url)], `Example photo of ${name}`));
      return button;
    }));
    row.append(images);
  }
  if (meaning) row.append(element("p", meaning));
  return row;
}

// fetch() of a data URL is outside of the page's Content-Security-Policy.
function blobOf(url) {
  const bytes = Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), (char) => char.charCodeAt(0));
  return new Blob([bytes], { type: "image/jpeg" });
}

$("model").addEventListener("change", async () => {
  const files = batch.map((row) => row.file);
  if (files.length) classifyAll(files);
  else if (current) classify(current.photo, current.name, { quiet: true });
  await showModel();
});

start().catch((error) => showProblem(error.message));
