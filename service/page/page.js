// The page over the API: takes a photo, asks POST /explain, shows what comes back.

const $ = (id) => document.getElementById(id);

// What a problem's code means to someone with a photo in hand; the rest is told in the API's words.
const WORDS = {
  no_file: "The photo is empty. Choose another one.",
  zero_bytes: "The file is empty. It may not have been downloaded to this device yet.",
  not_an_image: "This is not a photo. JPEG, PNG, HEIC, WebP and other photo formats are read.",
  wrong_type: "This is not a photo. JPEG, PNG, HEIC, WebP and other photo formats are read.",
  truncated: "The photo is cut off: its file ends too early. Fetch or save it again.",
  unreadable: "The photo is damaged and cannot be read. Save it again, or choose another one.",
  unsupported: "The photo's colours are of a kind that cannot be read. Save it as JPEG.",
  too_large: "The photo has too many pixels. Make it smaller first.",
  upload_too_large: "The file is too large. Make the photo smaller first.",
  upload_too_slow: "The photo did not arrive in time. Is the connection slow? Try again.",
  busy: "Many photos are waiting just now. Try again in a few seconds.",
  internal: "Something went wrong here, not with your photo. Try again later.",
};

let model = null;
let asked = 0; // only the latest question's answer is shown
let address = null; // of the photo shown, to be released

const percent = (share) => {
  if (share > 0.999 && share < 1) return "> 99.9 %";
  if (share < 0.001 && share > 0) return "< 0.1 %";
  return `${(share * 100).toFixed(1)} %`;
};
const either = (names) =>
  names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// --- asking ---------------------------------------------------------------------------------

async function look(photo, name) {
  const mine = ++asked;
  showPhoto(photo, name);
  $("waiting").textContent = $("spoken").textContent = "Looking at the photo …";
  $("waiting").hidden = false;
  $("problem").hidden = $("answer").hidden = true;
  document.body.classList.add("waiting");
  let answer;
  try {
    answer = await ask(photo);
  } catch (error) {
    if (mine === asked) showProblem(error.message);
    return;
  } finally {
    if (mine === asked) document.body.classList.remove("waiting");
  }
  if (mine === asked) await showAnswer(answer);
}

async function ask(photo) {
  const form = new FormData();
  form.append("file", photo, "photo");
  let response;
  try {
    response = await fetch("/explain", {
      method: "POST",
      body: form,
      headers: { Accept: "application/json" },
    });
  } catch {
    throw new Error("The service cannot be reached, or it refused the file while it was on its way. Is the photo very large?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(WORDS[answer.code] ?? answer.detail ?? `The service answered ${response.status}.`);
  return answer;
}

// --- showing --------------------------------------------------------------------------------

function showPhoto(photo, name) {
  if (address) URL.revokeObjectURL(address);
  address = URL.createObjectURL(photo);
  $("heat").hidden = $("slider").hidden = true;
  $("photo").alt = name;
  $("photo").onload = () => {
    $("stack").style.setProperty("--ratio", $("photo").naturalWidth / $("photo").naturalHeight);
  };
  // A browser that cannot show the format (HEIC) is given the model's view by the answer.
  $("photo").onerror = () => { $("shown").hidden = true; };
  $("photo").src = address;
  $("shown").hidden = false;
}

async function showAnswer({ prediction, seen, heat_map }) {
  const { predicted, probabilities, prediction_set: set, abstain } = prediction;
  $("waiting").hidden = true;
  $("verdict").className = abstain ? "unsure" : "";
  $("verdict").textContent = abstain ? "Not sure" : predicted;
  if (!abstain) {
    $("reason").textContent = "The other classes can be ruled out, as far as this model's calibration goes.";
  } else if (set.length) {
    $("reason").textContent = `It may be ${either(set)}: the model cannot tell these apart on this photo.`;
  } else {
    $("reason").textContent = `No class is as likely as the right one usually is. Its best guess is ${predicted}.`;
  }
  $("bars").replaceChildren(...Object.entries(probabilities).map(([name, share]) => {
    const row = element("li", "", name === predicted ? "first" : "");
    const track = element("span", "", "track");
    const fill = element("span", "", "fill");
    fill.style.width = `${share * 100}%`;
    track.append(fill);
    track.setAttribute("aria-hidden", "true");
    row.append(element("span", name, "name"), track, element("span", percent(share), "value"));
    return row;
  }));
  $("answer").hidden = false;
  await showHeat(seen, heat_map, predicted);
  $("spoken").textContent = `${$("verdict").textContent}. ${$("reason").textContent}`;
  reveal();
}

async function showHeat(seen, heat, predicted) {
  const photo = $("photo");
  const view = new Image();
  view.src = seen;
  await Promise.all([view.decode(), photo.decode().catch(() => {})]);
  // The heat map fits what the model saw: a browser may show the photo otherwise, or not at all.
  const shape = (image) => Math.log(image.naturalWidth / image.naturalHeight);
  if (!photo.naturalWidth || !(Math.abs(shape(photo) - shape(view)) < 0.03)) photo.src = seen;
  await photo.decode();
  $("heat").src = heat;
  $("heat").alt = `Heat map: what speaks for ${predicted}`;
  $("shown").hidden = $("heat").hidden = $("slider").hidden = false;
  fade();
}

function fade() {
  $("heat").style.opacity = $("strength").value / 100;
  $("strength-value").textContent = `${$("strength").value} %`;
}

function showProblem(words) {
  $("waiting").hidden = true;
  $("shown").hidden = true;
  $("problem").textContent = words;
  $("problem").hidden = false;
  reveal();
}

function reveal() {
  // Keyboards and screen readers go on from the answer; on a phone it lies below the photo.
  $("output-title").focus({ preventScroll: true });
  const target = matchMedia("(max-width: 50rem)").matches && !$("shown").hidden ? "shown" : "main";
  $(target).scrollIntoView({ block: "start" });
}

// --- where photos come from -----------------------------------------------------------------

function take(file, name = "Your photo") {
  if (file) look(file, name);
}

for (const id of ["file", "capture"]) {
  $(id).addEventListener("change", (event) => {
    take(event.target.files[0]);
    event.target.value = ""; // so that the same file can be chosen again
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
  take(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => take(event.clipboardData.files[0], "The pasted photo"));

let stream = null;

$("camera").addEventListener("click", async () => {
  // Browsers give a page the camera only on https and localhost; a phone's own camera app always.
  if (!navigator.mediaDevices?.getUserMedia) return $("capture").click();
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } },
    });
  } catch {
    return showProblem("The camera cannot be used: there is none, or the browser was not allowed to.");
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
  canvas.toBlob((photo) => take(photo, "The camera's photo"), "image/jpeg", 0.92);
});
$("cancel").addEventListener("click", () => $("viewfinder").close());
$("viewfinder").addEventListener("close", () => {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
});

// --- the model --------------------------------------------------------------------------------

async function showModel() {
  for (const here of document.querySelectorAll(".here")) here.textContent = location.origin;
  model = await (await fetch("/model")).json();
  const facts = [["Classes", model.classes.join(", ")], ["Model id", model.model]];
  const accuracy = model.scores?.balanced_accuracy;
  if (accuracy) {
    facts.push([
      "Balanced accuracy",
      `${accuracy.value.toFixed(2)} on ${model.scores.photos} test photos; 95 % interval ` +
      `${accuracy.ci_low.toFixed(2)} to ${accuracy.ci_high.toFixed(2)}`,
    ]);
  }
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  if (model.card) {
    $("card-text").replaceChildren(...rendered(model.card));
    $("card").hidden = false;
  }
  for (const row of document.querySelectorAll("#meanings [data-class]")) {
    row.hidden = !model.classes.includes(row.dataset.class);
    if (!row.hidden) $("meanings").hidden = $("or-example").hidden = false;
  }
}

for (const row of document.querySelectorAll("#meanings [data-class]")) {
  row.querySelector("button").addEventListener("click", async () => {
    const picture = row.querySelector("img");
    take(await (await fetch(picture.src)).blob(), picture.alt);
  });
}

// Headings, paragraphs, lists, tables, code, bold: what a model card is written in. Everything goes
// in as text, never as HTML.
function rendered(markdown) {
  const lines = markdown.replace(/^---\n[\s\S]*?\n---\n/, "").split("\n");
  const blocks = [];
  while (lines.length) {
    const line = lines.shift();
    const heading = line.match(/^(#+)\s+(.*)/);
    const whole = (pattern) => {
      const found = [line];
      while (lines.length && pattern.test(lines[0])) found.push(lines.shift());
      return found;
    };
    if (!line.trim()) continue;
    if (heading) {
      blocks.push(inline(element(heading[1].length < 3 ? "h3" : "h4"), heading[2]));
    } else if (line.startsWith("```")) {
      const code = [];
      while (lines.length && !lines[0].startsWith("```")) code.push(lines.shift());
      lines.shift();
      blocks.push(element("pre", code.join("\n")));
    } else if (line.startsWith("|")) {
      blocks.push(tabled(whole(/^\|/)));
    } else if (/^\s*[-*]\s/.test(line)) {
      const list = element("ul");
      for (const item of whole(/^(\s*[-*]\s|\s+\S)/).join("\n").split(/\n?^\s*[-*]\s+/m).slice(1)) {
        list.append(inline(element("li"), item));
      }
      blocks.push(list);
    } else {
      blocks.push(inline(element("p"), whole(/^(?![#|`]|\s*[-*]\s|\s*$)/).join(" ")));
    }
  }
  return blocks;
}

function tabled(lines) {
  const table = element("table");
  lines.forEach((line, number) => {
    const cells = line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
    if (cells.every((cell) => /^:?-+:?$/.test(cell)) || cells.every((cell) => !cell)) return;
    const row = element("tr");
    row.append(...cells.map((cell) => inline(element(number ? "td" : "th"), cell)));
    table.append(row);
  });
  const scroll = element("div", "", "scroll");
  scroll.tabIndex = 0;
  scroll.append(table);
  return scroll;
}

function inline(target, text) {
  const words = text.replace(/!\[[^\]]*\]\([^)]*\)/g, "").replace(/\[([^\]]*)\]\([^)]*\)/g, "$1");
  for (const piece of words.split(/(`[^`]+`|\*\*[^*]+\*\*)/)) {
    if (piece.startsWith("`")) target.append(element("code", piece.slice(1, -1)));
    else if (piece.startsWith("**")) target.append(element("strong", piece.slice(2, -2)));
    else target.append(piece);
  }
  return target;
}

showModel().catch(() => showProblem("The service cannot be reached. Reload the page to try again."));
