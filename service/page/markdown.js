// Render the Markdown subset of model cards: headings, paragraphs, lists, tables, code and bold.
// All content is inserted as text, never as HTML.

export function element(tag, text = "", className = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  if (className) node.className = className;
  return node;
}

export function renderMarkdown(markdown) {
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
      const block = element("pre", code.join("\n"));
      block.tabIndex = 0; // it may scroll sideways
      blocks.push(block);
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
  scroll.setAttribute("role", "group"); // no landmark: there are several
  scroll.setAttribute("aria-label", "Table of the model card");
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

