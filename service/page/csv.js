// The table of several photos as CSV, with the columns of `anklealign predict`.

// A spreadsheet takes such a cell for a formula; with an apostrophe, it is text
// (anklealign/io/files.py).
const FORMULA = /^'*[=+\-@\t\r]/;

const cell = (value) => {
  const text = value === null || value === undefined ? "" : String(value);
  const safe = typeof value === "string" && FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};

// Rows have path, model, prediction (of the API, or undefined) and reason.
export function toCsv(rows) {
  const classes = [...new Set(rows.flatMap((row) => Object.keys(row.prediction?.probabilities ?? {})))];
  const header = [
    "path", "model", "predicted", ...classes.map((name) => `p_${name}`), "prediction_set", "abstain",
    "in_distribution", "novelty", "reason",
  ];
  const lines = rows.map(({ path, model, prediction, reason }) => [
    path, model, prediction?.predicted,
    ...classes.map((name) => prediction?.probabilities[name]),
    prediction?.prediction_set.join("|"), prediction?.abstain, prediction?.in_distribution,
    prediction?.novelty, reason,
  ]);
  // Spreadsheets recognize UTF-8 by the mark at the start; pandas ignores it.
  return `\ufeff${[header, ...lines].map((line) => line.map(cell).join(",")).join("\r\n")}\r\n`;
}
