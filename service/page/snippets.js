// Programs that call the API of this page, with its own address.

// Returns [language, program] pairs. `base` is the address without a slash at the end; `model` is
// the name of the model, or "" for the default; `key` is true if the service requires an API key.
export function snippets(base, model, key) {
  const query = model ? `?model=${encodeURIComponent(model)}` : "";
  const url = `${base}/predict${query}`;
  const header = key ? ` -H "Authorization: Bearer $KEY"` : "";
  return [
    ["curl", `curl -F file=@photo.jpg${header} '${url}'
curl -F file=@photo.jpg${header} -o heat_map.png '${base}/explain${query}'`],
    ["Python", `import json
${key ? "import os\n" : ""}import urllib.request

with open("photo.jpg", "rb") as file:
    request = urllib.request.Request("${url}", data=file.read())
request.add_header("Content-Type", "image/jpeg")
${key ? `request.add_header("Authorization", f"Bearer {os.environ['KEY']}")\n` : ""}with urllib.request.urlopen(request) as response:
    (prediction,) = json.load(response)["predictions"]
print(prediction["predicted"], prediction["probabilities"])`],
    ["JavaScript", `// Node.js. In a browser, the photo is the file of an <input type="file">.
import { openAsBlob } from "node:fs";

const form = new FormData();
form.append("file", await openAsBlob("photo.jpg"), "photo.jpg");
const response = await fetch("${url}", { method: "POST", body: form${
  key ? ", headers: { Authorization: `Bearer ${process.env.KEY}` }" : ""} });
const [prediction] = (await response.json()).predictions;
console.log(prediction.predicted, prediction.probabilities);`],
  ];
}
