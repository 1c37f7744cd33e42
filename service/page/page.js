// The page: sends a photo to POST /explain and shows the prediction and its heat map.

const $ = (id) => document.getElementById(id);

// User-facing messages for problem codes; other problems show the detail of the API.
const MESSAGES = {
  no_file: "The photo is empty. Choose another one.",
  zero_bytes: "The file is empty. It may not be downloaded to this device yet.",
  not_an_image: "This file is not a photo. Supported formats include JPEG, PNG, HEIC and WebP.",
  wrong_type: "This file is not a photo. Supported formats include JPEG, PNG, HEIC and WebP.",
  truncated: "The photo is truncated. Download or save it again.",
  unreadable: "The photo is damaged and cannot be read. Save it again, or choose another one.",
  unsupported: "The photo's color format is not supported. Save it as JPEG.",
  camera_raw: "This is a raw file of a camera. Export it as JPEG.",
  too_slow: "The photo cannot be read. Save it again as JPEG or PNG.",
  decoder_crashed: "The photo is damaged and cannot be read. Save it again, or choose another one.",
  too_large: "The photo has too many pixels. Resize it and try again.",
  upload_too_large: "The file is too large. Resize the photo and try again.",
  upload_too_slow: "The upload timed out. Check your connection and try again.",
  busy: "The service is busy. Try again in a few seconds.",
  internal: "The service failed to process the photo. Try again later.",
};

let model = null;
let latestRequest = 0; // only the response to the latest request is shown
let photoUrl = null; // object URL of the current photo; released with the next one

const percent = (probability) => {
  if (probability > 0.999 && probability < 1) return "> 99.9%";
  if (probability < 0.001 && probability > 0) return "< 0.1%";
  return `${(probability * 100).toFixed(1)}%`;
};
const joinWithOr = (names) =>
  names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;

function element(tag, text = "", className = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  if (className) node.className = className;
  return node;
}

// --- requests -------------------------------------------------------------------------------

async function classify(photo, name) {
  const request = ++latestRequest;
  showPhoto(photo, name);
  $("waiting").textContent = $("announcement").textContent = "Analyzing the photo …";
  $("waiting").hidden = false;
  $("problem").hidden = $("result").hidden = true;
  document.body.classList.add("waiting");
  let explanation;
  try {
    explanation = await requestExplanation(photo);
  } catch (error) {
    if (request === latestRequest) showProblem(error.message);
    return;
  } finally {
    if (request === latestRequest) document.body.classList.remove("waiting");
  }
  if (request === latestRequest) await showPrediction(explanation);
}

async function requestExplanation(photo) {
  const form = new FormData();
  form.append("file", photo, "photo");
  let response;
  try {
    response = await fetchWithKey("explain", {
      method: "POST",
      body: form,
      headers: { Accept: "application/json" },
    });
  } catch {
    throw new Error("The service is unreachable, or it rejected the upload. The photo may be too large.");
  }
  const content = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(MESSAGES[content.code] ?? content.detail ?? `The service returned status ${response.status}.`);
  }
  return content;
}

// Where the service requires an API key, ask for it once per tab.
async function fetchWithKey(url, options = {}) {
  const send = () => {
    const key = sessionStorage.getItem("key");
    const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    return fetch(url, { ...options, headers });
  };
  const response = await send();
  if (response.status !== 401) return response;
  const key = prompt("API key of this service");
  if (!key) return response;
  sessionStorage.setItem("key", key.trim());
  return send();
}

// --- results --------------------------------------------------------------------------------

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

async function showPrediction({ prediction, seen, heat_map }) {
  const { predicted, probabilities, prediction_set: set, abstain } = prediction;
  const measured = model?.scores?.calibration;
  $("waiting").hidden = true;
  $("unlike").hidden = prediction.in_distribution;
  $("predicted").className = abstain ? "abstained" : "";
  $("predicted").textContent = abstain ? "Uncertain" : predicted;
  if (!prediction.in_distribution) {
    $("reason").textContent = "The probabilities say little about such a photo.";
  } else if (!abstain) {
    $("reason").textContent = measured?.selective_accuracy === undefined
      ? "The only class in the prediction set."
      : `The only class in the prediction set. Such predictions were right on ${percent(measured.selective_accuracy)} of the test photos.`;
  } else {
    $("reason").textContent = `The class may be ${joinWithOr(set)}: the model cannot distinguish them in this photo.`;
    if (measured) $("reason").textContent += ` On ${percent(measured.coverage.value)} of the test photos, the true class was in the set.`;
  }
  $("bars").replaceChildren(...Object.entries(probabilities).map(([name, probability]) => {
    const row = element("li", "", name === predicted ? "first" : "");
    const track = element("span", "", "track");
    const fill = element("span", "", "fill");
    fill.style.width = `${probability * 100}%`;
    track.append(fill);
    track.setAttribute("aria-hidden", "true");
    row.append(element("span", name, "name"), track, element("span", percent(probability), "value"));
    return row;
  }));
  if (!predicted) {
    $("predicted").textContent = "No prediction";
    $("reason").textContent = "This service predicts no class for such photos.";
  }
  $("result").hidden = false;
  await showHeat(seen, heat_map, predicted);
  const unlike = prediction.in_distribution ? "" : `${$("unlike").textContent} `;
  $("announcement").textContent = `${unlike}${$("predicted").textContent}. ${$("reason").textContent}`;
  reveal();
}

async function showHeat(seen, heat, predicted) {
  const photo = $("photo");
  const view = new Image();
  view.src = seen;
  await Promise.all([view.decode(), photo.decode().catch(() => {})]);
  // The heat map matches the model input. Some browsers show the photo rotated, or not at all.
  const logRatio = (image) => Math.log(image.naturalWidth / image.naturalHeight);
  if (!photo.naturalWidth || !(Math.abs(logRatio(photo) - logRatio(view)) < 0.03)) photo.src = seen;
  await photo.decode();
  $("heat").src = heat;
  $("heat").alt = predicted
    ? `Heat map of the evidence for ${predicted}`
    : "Heat map of the evidence for the most probable class";
  $("shown").hidden = $("heat").hidden = $("slider").hidden = false;
  fade();
}

function fade() {
  $("heat").style.opacity = $("strength").value / 100;
  $("strength-value").textContent = `${$("strength").value}%`;
}

function showProblem(message) {
  $("waiting").hidden = true;
  $("shown").hidden = true;
  $("problem").textContent = message;
  $("problem").hidden = false;
  reveal();
}

function reveal() {
  // Move the focus of keyboards and screen readers to the result; on a phone, scroll to the photo.
  $("output-title").focus({ preventScroll: true });
  const target = matchMedia("(max-width: 50rem)").matches && !$("shown").hidden ? "shown" : "main";
  $(target).scrollIntoView({ block: "start" });
}

// --- photo sources --------------------------------------------------------------------------

function submit(file, name = "Your photo") {
  if (file) classify(file, name);
}

for (const id of ["file", "capture"]) {
  $(id).addEventListener("change", (event) => {
    submit(event.target.files[0]);
    event.target.value = ""; // allows choosing the same file again
  });
}
$("strength").addEventListener("input", fade);

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
  submit(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => submit(event.clipboardData.files[0], "Pasted photo"));

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
  canvas.toBlob((photo) => submit(photo, "Camera photo"), "image/jpeg", 0.92);
});
$("cancel").addEventListener("click", () => $("viewfinder").close());
$("viewfinder").addEventListener("close", () => {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
});

// --- the model --------------------------------------------------------------------------------

async function showModel() {
  // All URLs are relative: behind a proxy, the service may be below a path.
  const base = new URL(".", location.href).href.replace(/\/$/, "");
  for (const node of document.querySelectorAll(".origin")) node.textContent = base;
  model = await (await fetchWithKey("model")).json();
  const facts = [["Classes", model.classes.join(", ")], ["Model ID", model.model]];
  const accuracy = model.scores?.balanced_accuracy;
  if (accuracy) {
    // With few test groups there is no confidence interval.
    const interval = accuracy.ci_low === undefined
      ? "" : `; 95% CI ${accuracy.ci_low.toFixed(2)} to ${accuracy.ci_high.toFixed(2)}`;
    facts.push([
      "Balanced accuracy",
      `${accuracy.value.toFixed(2)} on ${model.scores.photos} test photos${interval}`,
    ]);
  }
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  if (model.card) {
    $("card-text").replaceChildren(...renderMarkdown(model.card));
    $("card").hidden = false;
  }
  for (const row of document.querySelectorAll("#meanings [data-class]")) {
    row.hidden = !model.classes.includes(row.dataset.class);
    if (!row.hidden) $("meanings").hidden = $("or-example").hidden = false;
  }
}

for (const row of document.querySelectorAll("#meanings [data-class]")) {
  row.querySelector("button").addEventListener("click", async () => {
    const image = row.querySelector("img");
    submit(await (await fetch(image.src)).blob(), image.alt);
  });
}

// Render the Markdown subset of model cards: headings, paragraphs, lists, tables, code and bold.
// All content is inserted as text, never as HTML.
function renderMarkdown(markdown) {
  const lines = markdown.replace(/^---\n[\s\S]*?\n---\n/, "").split("\n");
  const blocks = [];
  while (lines.length) {
    const line = lines.shift();
    const heading = line.match(/^(#+)\s+(.*)/);
    const takeWhile = (pattern) => {
      const block = [line];
      while (lines.length && pattern.test(lines[0])) block.push(lines.shift());
      return block;
    };
    if (!line.trim()) continue;
    if (heading) {
      blocks.push(appendInline(element(heading[1].length < 3 ? "h3" : "h4"), heading[2]));
    } else if (line.startsWith("```")) {
      const code = [];
      while (lines.length && !lines[0].startsWith("```")) code.push(lines.shift());
      lines.shift();
      blocks.push(element("pre", code.join("\n")));
    } else if (line.startsWith("|")) {
      blocks.push(renderTable(takeWhile(/^\|/)));
    } else if (/^\s*[-*]\s/.test(line)) {
      const list = element("ul");
      for (const item of takeWhile(/^(\s*[-*]\s|\s+\S)/).join("\n").split(/\n?^\s*[-*]\s+/m).slice(1)) {
        list.append(appendInline(element("li"), item));
      }
      blocks.push(list);
    } else {
      blocks.push(appendInline(element("p"), takeWhile(/^(?![#|`]|\s*[-*]\s|\s*$)/).join(" ")));
    }
  }
  return blocks;
}

function renderTable(lines) {
  const table = element("table");
  lines.forEach((line, number) => {
    const cells = line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
    if (cells.every((cell) => /^:?-+:?$/.test(cell)) || cells.every((cell) => !cell)) return;
    const row = element("tr");
    row.append(...cells.map((cell) => appendInline(element(number ? "td" : "th"), cell)));
    table.append(row);
  });
  const scroll = element("div", "", "scroll");
  scroll.tabIndex = 0;
  scroll.append(table);
  return scroll;
}

function appendInline(target, text) {
  const plain = text.replace(/!\[[^\]]*\]\([^)]*\)/g, "").replace(/\[([^\]]*)\]\([^)]*\)/g, "$1");
  for (const piece of plain.split(/(`[^`]+`|\*\*[^*]+\*\*)/)) {
    // Names are escaped with entities (anklealign/reporting/markdown.py).
    const decoded = piece.replace(/&#(\d+);/g, (_, code) => String.fromCodePoint(Number(code)));
    if (piece.startsWith("`")) target.append(element("code", piece.slice(1, -1)));
    else if (piece.startsWith("**")) target.append(element("strong", decoded.slice(2, -2)));
    else target.append(decoded);
  }
  return target;
}

showModel().catch(() => showProblem("The service is unreachable. Reload the page to try again."));
