// Bundles the parts of Observable Plot that the report uses into one script, with the licenses of
// everything in it:
//     make charts
import { build } from "esbuild";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const assets = path.join(here, "../../anklealign/reporting/assets");
const marks = [
  "plot", "areaY", "axisX", "axisY", "barX", "barY", "binX", "dot", "gridX", "gridY", "groupY",
  "line", "lineY", "link", "rect", "rectY", "ruleX", "ruleY", "stackX", "text", "tickX",
];
const result = await build({
  stdin: {
    contents: `export { ${marks.join(", ")} } from "@observablehq/plot";`,
    resolveDir: here,
  },
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "Plot",
  target: "es2020",
  charset: "ascii",
  legalComments: "none",
  metafile: true,
  write: false,
});

// Packages with the same license text are listed above one copy of it.
const packages = new Set(
  Object.keys(result.metafile.inputs)
    .map((file) => file.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1])
    .filter(Boolean),
);
const owners = new Map();
for (const name of [...packages].sort()) {
  const folder = path.join(here, "node_modules", name);
  const { version } = JSON.parse(readFileSync(path.join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  if (!file) throw new Error(`${name} has no license file`);
  const text = readFileSync(path.join(folder, file), "utf8").trim();
  if (text.includes("*/")) throw new Error(`${name}: its license would end a comment`);
  owners.set(text, [...(owners.get(text) ?? []), `${name} ${version}`]);
}
const licenses = [...owners]
  .map(([text, names]) => `${names.join("\n")}\n\n${text}\n`)
  .join(`\n${"-".repeat(80)}\n\n`);
writeFileSync(path.join(assets, "plot.LICENSE.txt"), licenses);
// The licenses go with every copy, and the script is copied into each report.
writeFileSync(path.join(assets, "plot.min.js"), `/*!\n${licenses}*/\n${result.outputFiles[0].text}`);
