// The report's charts, filters and photo viewer. Its data is in the page; it loads nothing.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const { photos } = data;
  const { names } = photos;
  const shown = photos.pictures.length;
  const STEP = 12; // photos of a gallery before 'more photos'
  const STATES = {
    train: "training", val: "validation", test: "test", removed: "removed", excluded: "in no split",
  };
  const $ = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const percent = (value) => `${Math.round(100 * value)}%`;
  const plural = (count, word) => `${count.toLocaleString("en-US")} ${word}${count === 1 ? "" : "s"}`;
  const color = (index) => `var(--c${index % 8})`;

  /** Return an element; children that are null are left out, and text is never read as HTML. */
  function h(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "style") Object.assign(element.style, value);
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return element;
  }

  // --- Photos ------------------------------------------------------------------------------------

  const source = (base64) => `data:image/webp;base64,${base64}`;
  const value = (column, n) => (names[column][photos[column]?.[n]] ?? "");
  const state = (n) => value("state", n);
  const predicted = (n) => names.label[photos.predicted[n]] ?? "";
  const outcome = (n) =>
    photos.predicted[n] < 0 ? "" : photos.predicted[n] === photos.label[n] ? "right" : "wrong";
  const confidence = (n) => (photos.test[n] ? photos.test[n].p[0][1] : 0);

  function caption(n) {
    const title = value("label", n);
    if (outcome(n)) {
      const sure = photos.test[n] ? ` ${percent(confidence(n))}` : "";
      return [title, outcome(n) === "wrong" ? `predicted ${predicted(n)}${sure}` : `right${sure}`];
    }
    const reason = value("reason", n).replaceAll("_", " ");
    return [title, reason || STATES[state(n)]];
  }

  /** Return a button that opens a photo; `list` is what the arrow keys step through. */
  function tile(n, list, { heat = false, note = null } = {}) {
    const [title, detail] = caption(n);
    const overlay = heat && photos.heat[n] ? h("img", { src: source(photos.heat[n]), alt: "" }) : null;
    return h("button", { type: "button", class: `tile ${outcome(n)}`, "data-n": n, onclick: () => open(n, list) },
      h("span", { class: "picture" },
        h("img", { src: source(photos.pictures[n]), alt: "" }), overlay),
      h("span", {}, title, h("small", {}, note?.(n) ?? detail)));
  }

  /** Fill a gallery with the photos of a list that have a picture, some at a time. */
  function gallery(element, list, options = {}) {
    const withPicture = list.filter((n) => n < shown);
    const step = options.step ?? STEP;
    element.replaceChildren(...withPicture.slice(0, step).map((n) => tile(n, withPicture, options)));
    element.parentElement.querySelector(":scope > .more-photos")?.remove();
    let count = step;
    if (withPicture.length <= count) return;
    const button = h("button", { type: "button", class: "more-photos", onclick: () => {
      const next = withPicture.slice(count, count + 2 * step);
      const tiles = next.map((n) => tile(n, withPicture, options));
      element.append(...tiles);
      tiles[0].focus();
      count += next.length;
      label();
    } });
    const label = () => {
      if (count >= withPicture.length) button.remove();
      else button.textContent = `More photos (${withPicture.length - count})`;
    };
    label();
    element.after(button);
  }

  // --- Viewer ------------------------------------------------------------------------------------

  const viewer = $("viewer");
  let current = 0;
  let stepping = [];
  let opener = null;

  function open(n, list) {
    if (!viewer.open) opener = document.activeElement;
    current = n;
    stepping = list && list.includes(n) ? list : [n];
    render();
    if (!viewer.open) viewer.showModal();
    $("viewer-title").focus();
    viewer.scrollTop = 0;
  }

  function step(by) {
    const place = stepping.indexOf(current) + by;
    if (place >= 0 && place < stepping.length) open(stepping[place], stepping);
  }

  function bars(values, label, prediction) {
    const rows = Object.entries(values).sort((a, b) => b[1] - a[1]);
    return h("div", { class: "bars" }, rows.map(([name, share]) => [
      h("span", {}, name),
      h("span", { class: "track" }, h("b", {
        class: name === label ? "right" : name === prediction ? "wrong" : "",
        style: { width: `${100 * share}%` } })),
      h("span", {}, percent(share)),
    ]));
  }

  function render() {
    const n = current;
    const test = photos.test[n];
    const [label, prediction] = [value("label", n), predicted(n)];
    $("viewer-title").textContent = !prediction
      ? `${label}: ${value("reason", n).replaceAll("_", " ") || `${STATES[state(n)]} photo`}`
      : outcome(n) === "right"
        ? `Right: ${label}`
        : `Wrong: labeled ${label}, predicted ${prediction}`;
    const place = stepping.indexOf(n);
    $("previous").disabled = place <= 0;
    $("next").disabled = place >= stepping.length - 1;
    const right = [];
    if (test) {
      right.push(h("h3", {}, "Probabilities"),
        bars(Object.fromEntries(test.p.map(([k, share]) => [names.label[k], share])), label, prediction));
      if (test.set.length > 1)
        right.push(h("p", { class: "faint" },
          `Uncertain: the class may be ${test.set.slice(0, -1).join(", ")} or ${test.set.at(-1)}.`));
      if (test.unlike)
        right.push(h("p", { class: "warning" }, "This photo is unlike the training photos."));
    }
    if (data.other.predicted?.[n])
      right.push(h("p", {}, `The other run predicts ${data.other.predicted[n]}.`));
    if (photos.votes[n]) {
      const votes = photos.votes[n];
      const total = Object.values(votes).reduce((sum, count) => sum + count, 0);
      right.push(h("h3", {}, `Votes of ${plural(total, "annotator")}`),
        bars(Object.fromEntries(Object.entries(votes).map(([k, c]) => [k, c / total])), label));
    }
    if (photos.beside[n] !== undefined)
      right.push(h("h3", {}, "The same picture"),
        h("div", { class: "near" }, tile(photos.beside[n], null)));
    if (photos.near[n])
      right.push(h("h3", {}, "Most similar training photos, to the model"),
        h("div", { class: "near" }, photos.near[n].map(([other, similarity]) =>
          tile(other, photos.near[n].map(([m]) => m), { note: () => `similarity ${similarity}%` }))));
    const facts = [
      ["file", photos.path[n]], ["size", `${photos.size[n]} px`], ["split", STATES[state(n)]],
      ["collector", value("collector", n)], ["subject", value("subject", n)],
      ["reason", value("reason", n).replaceAll("_", " ")], ["why", photos.why[n] ?? ""],
    ].filter(([, text]) => text);
    right.push(h("h3", {}, "About the photo"),
      h("dl", {}, facts.map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])));
    const photo = h("img", { src: source(photos.pictures[n]), alt: `Photo ${photos.path[n]}` });
    const [across, down] = photos.size[n].split(" x ").map(Number);
    const width = `min(100%, calc(62vh * ${across / down}))`;
    const left = h("div", {}, h("div", { class: "picture", style: { width } }, photo));
    if (photos.heat[n]) {
      const heat = h("img", { src: source(photos.heat[n]), alt: "", id: "viewer-heat" });
      left.firstChild.append(heat);
      left.append(
        h("label", { for: "strength", class: "faint" }, `Heat map: support for ${prediction}`),
        h("input", { type: "range", id: "strength", min: 0, max: 100, value: 80,
          style: { width: "100%", accentColor: "var(--accent)" },
          oninput: (event) => { heat.style.opacity = event.target.value / 100; } }),
        h("p", { class: "legend" }, h("span", {}, "no support"), h("i"), h("span", {}, "strongest support")));
      heat.style.opacity = 0.8;
    } else if (!prediction) {
      left.append(h("p", { class: "faint" }, "Only test photos have a prediction and a heat map."));
    }
    $("viewer-body").replaceChildren(h("div", { class: "view" }, left, h("div", {}, right)));
  }

  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => opener?.focus());
  viewer.addEventListener("keydown", (event) => {
    if (event.target.type === "range") return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });

  for (const button of all("[data-photo]")) {
    const list = all("[data-photo]").map((other) => Number(other.dataset.photo));
    button.addEventListener("click", () => open(Number(button.dataset.photo), list));
  }

  // --- Filters -----------------------------------------------------------------------------------

  const LABELS = {
    label: "Class", predicted: "Predicted", split: "Split", collector: "Collector",
    reason: "Reason", subject: "Subject", outcome: "Show",
  };
  const ALL = { outcome: "right and wrong" };
  const explorers = {};

  function options(filter, rows) {
    if (filter === "outcome") return [["wrong", "wrong"], ["right", "right"]];
    const column = filter === "split" ? "state" : filter;
    const list = filter === "predicted" ? names.label : names[column];
    const present = new Set(rows.map((n) => photos[column][n]));
    return list.map((name, k) => [String(k), filter === "split" ? STATES[name] : name.replaceAll("_", " "), k])
      .filter(([, , k]) => present.has(k));
  }

  function matches(n, filter, wanted) {
    if (wanted === "") return true;
    if (filter === "outcome") return outcome(n) === wanted;
    return photos[filter === "split" ? "state" : filter][n] === Number(wanted);
  }

  /** Return an explorer: filters above a gallery of the photos that match them all. */
  function explorer(element) {
    const testOnly = element.dataset.splits === "test";
    let rows = Array.from({ length: photos.count }, (_, n) => n);
    if (testOnly) {
      rows = rows.filter((n) => photos.predicted[n] >= 0);
      rows.sort((a, b) => (a < shown ? 0 : 1) - (b < shown ? 0 : 1) || confidence(b) - confidence(a));
    }
    else {
      // Classes and splits in turn.
      const turns = {};
      const turn = new Map(rows.map((n) => {
        const key = `${photos.label[n]} ${photos.state[n]}`;
        turns[key] = (turns[key] ?? 0) + 1;
        return [n, turns[key]];
      }));
      rows.sort((a, b) => (a < shown ? 0 : 1) - (b < shown ? 0 : 1) || turn.get(a) - turn.get(b)
        || photos.state[a] - photos.state[b]);
    }
    const selects = {};
    for (const filter of element.dataset.filters.split(" ").filter(Boolean)) {
      const entries = options(filter, rows);
      if (!entries.length || entries.length > 1000) continue; // a longer list helps nobody
      selects[filter] = h("select", { onchange: () => update() },
        h("option", { value: "" }, ALL[filter] ?? "all"),
        entries.map(([code, text]) => h("option", { value: code }, text)));
    }
    const count = h("p", { class: "count", role: "status" });
    const grid = h("div", { class: "gallery" });
    const reset = h("button", { type: "button", class: "reset", onclick: () => set({}) }, "Reset");
    element.append(
      h("div", { class: "filters" },
        Object.entries(selects).map(([filter, select]) => h("label", {}, `${LABELS[filter]} `, select)),
        reset),
      count, h("div", {}, grid));
    const initial = { outcome: element.dataset.outcome ?? "" };

    function update() {
      const chosen = Object.entries(selects).map(([filter, select]) => [filter, select.value]);
      const found = rows.filter((n) => chosen.every(([filter, wanted]) => matches(n, filter, wanted)));
      const pictured = found.filter((n) => n < shown).length;
      count.textContent = found.length
        ? `${plural(found.length, "photo")}${pictured < found.length ? `, ${pictured} with a picture in this page` : ""}`
        : "No photo matches. Choose “all” in a filter, or Reset.";
      gallery(grid, found, { step: testOnly ? 14 : 7 });
    }
    function set(values) {
      for (const [filter, select] of Object.entries(selects))
        select.value = values[filter] ?? (Object.keys(values).length ? "" : initial[filter] ?? "");
      update();
    }
    set({});
    return { set, element, rows };
  }

  for (const element of all(".explorer")) explorers[element.dataset.splits] = explorer(element);

  const motion = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  const show = (element) => element.scrollIntoView({ behavior: motion, block: "start" });

  // A cell of the confusion matrix shows its photos below the matrix.
  for (const button of all("[data-actual]"))
    button.addEventListener("click", () => {
      const [a, p] = [Number(button.dataset.actual), Number(button.dataset.predicted)];
      for (const other of all("[data-actual]")) other.setAttribute("aria-pressed", other === button);
      const list = explorers.test.rows.filter((n) => photos.label[n] === a && photos.predicted[n] === p);
      const pictured = list.filter((n) => n < shown).length;
      const grid = h("div", { class: "gallery" });
      $("cell").replaceChildren(
        h("h3", {}, `${names.label[a]} predicted as ${names.label[p]}: ${plural(list.length, "photo")}`
          + (pictured < list.length ? `, ${pictured} with a picture in this page` : "")), grid);
      gallery(grid, list, { step: 8 });
    });

  for (const button of all("[data-reason]"))
    if (button.tagName === "BUTTON")
      button.addEventListener("click", () => {
        explorers.all.set({ reason: String(names.reason.indexOf(button.dataset.reason)) });
        show(explorers.all.element);
      });

  for (const button of all("[data-skip]"))
    button.addEventListener("click", () => {
      let count = 0;
      for (const row of all("#skipped tbody tr")) {
        row.hidden = !(row.dataset.item === "file" && row.dataset.reason === button.dataset.skip);
        count += !row.hidden;
      }
      $("skipped-note").textContent =
        `${count} of ${plural(Number(button.querySelector("b").textContent.replace(",", "")), "file")} with the reason “${button.dataset.skip.replaceAll("_", " ")}”. data/prepared/skipped.csv lists all.`;
      $("skipped-title").closest("details").open = true;
      show($("skipped-title"));
      $("skipped-title").focus({ preventScroll: true });
    });

  for (const element of all(".breakdown")) {
    const by = element.dataset.by;
    const counts = new Map();
    for (const n of explorers.test.rows) {
      const key = photos[by][n];
      if (key < 0) continue;
      const entry = counts.get(key) ?? [0, 0];
      entry[0] += outcome(n) === "right";
      entry[1] += 1;
      counts.set(key, entry);
    }
    const rows = [...counts].sort((a, b) => a[1][0] - a[1][1] - (b[1][0] - b[1][1]) || a[0] - b[0]);
    const line = ([key, [right, total]]) => h("tr", {},
      h("td", {}, h("button", { type: "button", class: "name", onclick: () => {
        explorers.test.set({ [by]: String(key) });
        show(explorers.test.element);
      } }, names[by][key])),
      h("td", { class: "n" }, `${right} of ${total} right`),
      h("td", {}, h("span", { class: "track" }, h("b", { style: { width: percent(right / total) } }))));
    const body = h("tbody", {}, rows.slice(0, 15).map(line));
    element.append(h("table", {}, body));
    if (rows.length > 15)
      element.append(h("button", { type: "button", class: "more-photos", onclick: (event) => {
        body.append(...rows.slice(15).map(line));
        event.target.remove();
      } }, `All ${rows.length}`));
  }

  const lists = {
    maps: () => Object.keys(photos.heat).map(Number).sort((a, b) => order(a) - order(b)),
    odd: () => photos.map.odd ?? [],
    this: () => data.other.this ?? [],
    other: () => data.other.other ?? [],
  };
  // Wrong and right photos in turn, the most confident ones first.
  const ranks = {};
  for (const kind of ["wrong", "right"])
    Object.keys(photos.heat).map(Number).filter((n) => outcome(n) === kind)
      .sort((a, b) => confidence(b) - confidence(a))
      .forEach((n, rank) => { ranks[n] = 2 * rank + (kind === "right"); });
  const order = (n) => ranks[n];
  for (const element of all("[data-list]")) {
    const name = element.dataset.list;
    const list = lists[name]();
    const compared = name === "this" || name === "other";
    const options = {
      heat: name === "maps",
      step: { maps: 10, this: 6, other: 6 }[name] ?? STEP,
      note: compared ? (n) => `this run: ${predicted(n)}, other run: ${data.other.predicted[n]}` : null,
    };
    if (list.length) gallery(element, list, options);
    else element.append(h("p", { class: "faint" }, "None."));
  }

  // --- Charts ------------------------------------------------------------------------------------

  const charts = {};
  let printing = false; // on A4
  const grid = { strokeOpacity: 1, stroke: "var(--line)", ticks: 5 };
  const style = {
    background: "transparent", color: "var(--soft)", fontSize: "13px", fontFamily: "inherit",
    overflow: "visible",
  };
  const margin = (list, width) =>
    Math.min(width * 0.45, 24 + 7.6 * Math.max(4, ...list.map((name) => name.length)));
  const short = (name, width) => {
    const most = Math.max(6, Math.floor((margin([name], width) - 16) / 7.6));
    return name.length > most ? `${name.slice(0, most - 1)}…` : name;
  };
  const shares = (extra = {}) => ({ domain: [0, 1], tickFormat: percent, ticks: 5, label: null, ...extra });

  /** Draw a chart as wide as its place, and again when that changes. */
  function chart(name, draw) {
    const place = $(`chart-${name}`);
    if (!place) return;
    charts[name] = () => {
      if (!place.clientWidth) return; // inside a closed 'more'
      const width = printing ? (place.closest(".two, .first") ? 335 : 690) : place.clientWidth;
      const svg = draw(Math.max(260, width));
      // Plot labels groups of marks, which have no role; the chart has one label.
      for (const group of svg.querySelectorAll("[aria-label]")) group.removeAttribute("aria-label");
      if (place.dataset.label) {
        svg.setAttribute("role", "img");
        svg.setAttribute("aria-label", place.dataset.label);
      }
      place.replaceChildren(svg);
    };
    charts[name]();
  }

  /** Values with their intervals, one row each. */
  function intervals(rows, key, width, fill, extra = []) {
    const labels = rows.map((row) => row[key]);
    const many = rows.length > 8; // then the values stand in a column
    return Plot.plot({
      width, height: 34 + rows.length * (many ? 24 : 46), marginTop: 8, marginRight: many ? 52 : 26,
      marginLeft: margin(labels, width), style,
      x: shares({ ticks: width < 360 ? 2 : 5 }), y: { domain: labels, label: null, tickSize: 0, tickFormat: (d) => short(d, width) },
      marks: [
        Plot.gridX(grid),
        Plot.ruleY(rows.filter((row) => row.low != null),
          { x1: "low", x2: "high", y: key, stroke: fill, strokeWidth: 5, strokeOpacity: 0.35, strokeLinecap: "round" }),
        Plot.dot(rows, { x: "value", y: key, fill, r: 6 }),
        Plot.text(rows, { x: (row) => (many ? 1 : row.value), y: key, text: (row) => percent(row.value),
          dy: many ? 0 : -14, dx: many ? 10 : 0, textAnchor: many ? "start" : "middle", fill: "var(--ink)",
          fontWeight: 600 }),
        ...extra,
      ],
    });
  }

  const KIND = { model: "var(--right)", baseline: "var(--neutral)", annotators: "var(--c2)" };
  chart("scores", (width) => intervals(data.scores, "name", width, (row) => KIND[row.kind]));
  chart("recall", (width) => intervals(
    data.recall.map((row) => ({ ...row, class: `${row.class} (${row.photos})` })), "class", width,
    "var(--right)"));

  const BEFORE = { x: "confidence_before", y: "accuracy_before" };
  const before = data.reliability.filter((row) => row.confidence_before != null);
  chart("reliability", (width) => Plot.plot({
    width: Math.min(width, 460), height: Math.min(width, 460) * 0.78, style, marginLeft: 48, marginBottom: 40, marginTop: 30,
    x: shares({ label: "confidence", labelAnchor: "center", labelArrow: "none" }),
    y: shares({ label: "correct", labelArrow: "none" }),
    marks: [
      Plot.gridX(grid), Plot.gridY(grid),
      Plot.link([0], { x1: 0, y1: 0, x2: 1, y2: 1, stroke: "var(--neutral)", strokeDasharray: "4 4" }),
      Plot.line(before, { ...BEFORE, stroke: "var(--neutral)" }),
      Plot.dot(before, { ...BEFORE, stroke: "var(--neutral)", fill: "var(--paper)", strokeWidth: 2, r: 4.5 }),
      Plot.line(data.reliability, { x: "confidence", y: "accuracy", stroke: "var(--right)" }),
      Plot.dot(data.reliability, { x: "confidence", y: "accuracy", fill: "var(--right)", r: 6 }),
    ],
  }));

  // Share of photos with at least this confidence, and share of right ones among them.
  const { confidence: sure, correct } = data.test;
  const covered = (threshold) => {
    let [count, right] = [0, 0];
    sure.forEach((value_, k) => { if (value_ >= threshold) { count += 1; right += correct[k]; } });
    return { threshold, count, right, coverage: count / sure.length, accuracy: count ? right / count : null };
  };
  const curve = Array.from({ length: 101 }, (_, k) => covered(k / 100));
  const slider = $("threshold");
  chart("coverage", (width) => {
    const now = slider.value / 100;
    const end = curve.findLast((row) => row.accuracy !== null) ?? curve[0];
    return Plot.plot({
      width, height: 250, style, marginLeft: 46, marginBottom: 40, marginRight: 70,
      x: shares({ label: "threshold", labelAnchor: "center", labelArrow: "none" }), y: shares(),
      marks: [
        Plot.gridY(grid),
        Plot.areaY(curve, { x: "threshold", y: "coverage", fill: "var(--neutral)", fillOpacity: 0.25 }),
        Plot.line(curve, { x: "threshold", y: "coverage", stroke: "var(--neutral)", strokeWidth: 2 }),
        Plot.line(curve.filter((row) => row.accuracy !== null),
          { x: "threshold", y: "accuracy", stroke: "var(--right)", strokeWidth: 2.5 }),
        Plot.text([end], { x: "threshold", y: "accuracy", text: () => "correct", dx: 8, textAnchor: "start", fill: "var(--right)" }),
        Plot.text([curve[5]], { x: "threshold", y: "coverage", text: () => "accepted", dy: -8, textAnchor: "start", fill: "var(--soft)" }),
        Plot.ruleX([now], { stroke: "var(--accent)", strokeWidth: 2 }),
        Plot.dot([covered(now)].filter((row) => row.accuracy !== null),
          { x: "threshold", y: "accuracy", fill: "var(--right)", r: 6 }),
      ],
    });
  });
  function threshold() {
    const now = covered(slider.value / 100);
    const rest = sure.length - now.count;
    $("threshold-value").textContent = `${slider.value}%`;
    $("threshold-text").textContent = now.count
      ? `${now.count} of ${sure.length} test photos are accepted (${percent(now.coverage)}), and ${now.right} of them are right (${percent(now.accuracy)}). ${plural(rest, "photo")} (${percent(1 - now.coverage)}) would need a look.`
      : `No test photo reaches this confidence. All ${sure.length} photos would need a look.`;
    charts.coverage?.();
  }
  slider.addEventListener("input", threshold);
  threshold();

  chart("splits", (width) => {
    const classes = [...new Set(data.splits.map((row) => row.class))];
    return Plot.plot({
      width, height: 44 + 26 * classes.length, style, marginLeft: margin(classes, width),
      x: { label: null, grid: false }, y: { domain: classes, label: null, tickSize: 0, tickFormat: (d) => short(d, width) },
      color: { domain: ["train", "val", "test"], range: ["var(--neutral)", "var(--c1)", "var(--right)"] },
      marks: [
        Plot.gridX(grid),
        Plot.barX(data.splits, Plot.stackX({ x: "photos", y: "class", fill: "split", order: ["train", "val", "test"] })),
        Plot.text(data.splits, Plot.stackX({ x: "photos", y: "class", order: ["train", "val", "test"],
          text: (row) => (row.photos > 0 ? `${STATES[row.split]} ${row.photos}` : ""), z: "split", fill: "var(--paper)",
          filter: (row) => row.photos * width > 90 * Math.max(...classes.map((c) => data.splits.filter((r) => r.class === c).reduce((s, r) => s + r.photos, 0))) })),
      ],
    });
  });

  for (const name of ["brightness", "contrast", "saturation"])
    chart(name, (width) => {
      const rows = data.statistics.map((row) => ({ class: row.class, q: row[name] }));
      const classes = rows.map((row) => row.class);
      return Plot.plot({
        width, height: 40 + 30 * rows.length, style, marginLeft: margin(classes, width), marginRight: 20,
        x: { domain: [0, Math.max(...rows.map((row) => row.q[4])) * 1.05], tickFormat: percent, ticks: 5, label: null },
        y: { domain: classes, label: null, tickSize: 0, tickFormat: (d) => short(d, width) },
        marks: [
          Plot.gridX(grid),
          Plot.ruleY(rows, { y: "class", x1: (r) => r.q[0], x2: (r) => r.q[4], stroke: "var(--right)" }),
          Plot.ruleY(rows, { y: "class", x1: (r) => r.q[1], x2: (r) => r.q[3], stroke: "var(--right)", strokeWidth: 7, strokeOpacity: 0.4 }),
          Plot.dot(rows, { y: "class", x: (r) => r.q[2], fill: "var(--right)", r: 5 }),
        ],
      });
    });

  chart("history", (width) => {
    const rows = data.history.rows.flatMap((row) => [
      { epoch: row.epoch, loss: row.train_loss, curve: "training" },
      { epoch: row.epoch, loss: row.val_loss, curve: "validation" },
    ]).filter((row) => row.loss !== null);
    const last = ["training", "validation"].map((name) => rows.findLast((row) => row.curve === name)).filter(Boolean);
    return Plot.plot({
      width, height: 250, style, marginRight: 80, marginBottom: 40, marginLeft: 46,
      x: { label: "epoch", labelAnchor: "center", labelArrow: "none", ticks: 6 }, y: { label: null, zero: true, ticks: 5 },
      color: { domain: ["training", "validation"], range: ["var(--neutral)", "var(--right)"] },
      marks: [
        Plot.gridY(grid),
        Plot.ruleX([data.history.best], { stroke: "var(--accent)", strokeDasharray: "4 4" }),
        Plot.text([data.history.best], { x: (d) => d, text: (d) => `kept: ${d}`, frameAnchor: "top", dx: 5, textAnchor: "start", fill: "var(--accent)" }),
        Plot.line(rows, { x: "epoch", y: "loss", stroke: "curve", strokeWidth: 2 }),
        Plot.text(last, { x: "epoch", y: "loss", text: "curve", dx: 6, textAnchor: "start", fill: "curve" }),
      ],
    });
  });

  chart("robustness", (width) => {
    const kinds = [...new Set(data.robustness.map((row) => row.kind))];
    const columns = width > 700 ? 4 : 2;
    const rows = data.robustness.map((row) => ({
      ...row, column: kinds.indexOf(row.kind) % columns, line: Math.floor(kinds.indexOf(row.kind) / columns),
      place: data.robustness.filter((other) => other.kind === row.kind).indexOf(row),
    }));
    const titles = kinds.map((kind, k) => ({ kind, column: k % columns, line: Math.floor(k / columns) }));
    return Plot.plot({
      width, height: 130 * Math.ceil(kinds.length / columns) + 20, style, marginLeft: 44,
      x: { axis: null, inset: 10 }, y: shares({ ticks: 3 }), fx: { axis: null }, fy: { axis: null, padding: 0.35 },
      marks: [
        Plot.gridY(grid),
        Plot.text(titles, { fx: "column", fy: "line", text: "kind", frameAnchor: "top-left", dy: -16, fill: "var(--ink)" }),
        Plot.line(rows, { fx: "column", fy: "line", x: "place", y: "score", z: "kind", stroke: "var(--right)" }),
        Plot.dot(rows, { fx: "column", fy: "line", x: "place", y: "score", fill: "var(--right)", r: 3.5 }),
        Plot.text(rows, { fx: "column", fy: "line", x: "place", y: 0, text: "level", dy: 10, fontSize: 11 }),
      ],
    });
  });

  // --- Map ---------------------------------------------------------------------------------------

  let marked = 0; // position in photos.map
  const colorOf = {
    label: (n) => photos.label[n], state: (n) => photos.state[n],
    outcome: (n) => ({ "": 2, right: 0, wrong: 1 })[outcome(n)],
  };
  const OUTCOMES = ["right", "wrong", "no test photo"];
  const OUTCOME_COLORS = ["var(--right)", "var(--wrong)", "var(--line)"];
  const mapColor = (by, k) => (by === "outcome" ? OUTCOME_COLORS[k] : color(k));
  const scale = (width) => ({ height: Math.min(620, width * 0.62), pad: 12 });
  chart("map", (width) => {
    const by = $("map-color").value;
    const { height, pad } = scale(width);
    const rows = photos.map.photo.map((n, k) => ({ x: photos.map.x[k], y: photos.map.y[k], fill: mapColor(by, colorOf[by](n)) }));
    const used = [...new Set(photos.map.photo.map(colorOf[by]))].sort((a, b) => a - b).slice(0, 24);
    const words = { label: names.label, state: names.state.map((name) => STATES[name]), outcome: OUTCOMES }[by];
    $("map-legend").replaceChildren(...used.map((k) => h("span", {}, h("i", { style: { background: mapColor(by, k) } }), words[k])));
    const svg = Plot.plot({
      width, height, style, margin: pad, x: { axis: null, domain: [0, 1000] }, y: { axis: null, domain: [0, 1000] },
      marks: [Plot.dot(rows, { x: "x", y: "y", fill: "fill", r: rows.length > 1500 ? 2.5 : 4, fillOpacity: 0.85 })],
    });
    svg.setAttribute("aria-hidden", "true");
    svg.addEventListener("pointermove", (event) => point(event, svg, width));
    svg.addEventListener("pointerleave", () => { $("map-card").hidden = true; });
    svg.addEventListener("click", (event) => { if (point(event, svg, width)) openMarked(); });
    return svg;
  });
  const openMarked = () => {
    const n = photos.map.photo[marked];
    if (n < shown) open(n, [n]);
  };
  function position(k, width) {
    const { height, pad } = scale(width);
    return [pad + (photos.map.x[k] / 1000) * (width - 2 * pad), height - pad - (photos.map.y[k] / 1000) * (height - 2 * pad)];
  }
  function point(event, svg, width) {
    const box = svg.getBoundingClientRect();
    const ratio = width / box.width;
    const [x, y] = [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
    let least = 24 ** 2;
    let nearest = -1;
    photos.map.photo.forEach((_, k) => {
      const [px, py] = position(k, width);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [least, nearest] = [distance, k];
    });
    svg.style.cursor = nearest < 0 ? "" : "pointer";
    if (nearest < 0) $("map-card").hidden = true;
    else mark(nearest);
    return nearest >= 0;
  }
  function mark(k) {
    marked = k;
    const n = photos.map.photo[k];
    const place = $("chart-map");
    const width = place.clientWidth;
    const [x, y] = position(k, width);
    const card = $("map-card");
    card.replaceChildren(
      n < shown ? h("img", { src: source(photos.pictures[n]), alt: "" }) : "",
      h("b", {}, caption(n)[0]), " ", caption(n)[1], n < shown ? "" : " (no picture in this page)");
    card.hidden = false;
    card.style.left = `${Math.min(Math.max(0, x + 14), width - 160)}px`;
    card.style.top = `${y + 14}px`;
    const svg = place.querySelector("svg");
    svg.querySelector(".mark")?.remove();
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    for (const [name, attribute] of Object.entries({ cx: x, cy: y, r: 8, fill: "none", stroke: "currentColor", "stroke-width": 2, class: "mark" }))
      ring.setAttribute(name, attribute);
    svg.append(ring);
  }
  if (charts.map) {
    $("map-color").addEventListener("change", () => { $("map-card").hidden = true; charts.map(); });
    const place = $("chart-map");
    place.addEventListener("focus", () => mark(marked));
    place.addEventListener("blur", () => { $("map-card").hidden = true; });
    place.addEventListener("keydown", (event) => {
      if (event.key === "Enter") return openMarked();
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!way) return undefined;
      event.preventDefault();
      // The nearest photo in this direction, at most 45 degrees aside.
      let best = Infinity;
      let next = marked;
      photos.map.photo.forEach((_, k) => {
        const [dx, dy] = [photos.map.x[k] - photos.map.x[marked], photos.map.y[k] - photos.map.y[marked]];
        const along = dx * way[0] + dy * way[1];
        const aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
        if (along > 0 && aside <= along && along + aside < best) [best, next] = [along + aside, k];
      });
      mark(next);
      return undefined;
    });
  }

  addEventListener("beforeprint", () => { printing = true; redraw(); });
  addEventListener("afterprint", () => { printing = false; redraw(); });
  let timer = 0;
  const redraw = () => Object.values(charts).forEach((draw) => draw());
  addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(redraw, 120); });
  for (const details of all("details")) details.addEventListener("toggle", redraw);
})();
