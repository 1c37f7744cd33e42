// The API of the service as functions. All URLs are relative: behind a proxy, the service may be
// below a path. The page without a server has another module of this name.

export const privacy = "Photos are processed in memory and never stored.";
export const hasApi = true;

const ATTEMPTS = 5; // of a request while the service is busy or the client is over its rate

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
  too_many_requests: "You have sent too many requests. Try again in a minute.",
  busy: "The service is busy. Try again in a few seconds.",
  internal: "The service failed to process the photo. Try again later.",
};

export const models = async () => (await request("models")).models;
export const describe = (model) => request(`model${query(model)}`);
export const examples = async (model) => (await request(`examples${query(model)}`)).examples;

export async function predict(model, photo) {
  return (await request(`predict${query(model)}`, photo)).predictions[0];
}

// Returns the prediction, the photo as the model receives it, and its heat map.
export const explain = (model, photo) => request(`explain${query(model)}`, photo);

export const hasKey = () => Boolean(sessionStorage.getItem("key"));

const query = (model) => `?model=${encodeURIComponent(model)}`;
const pause = (seconds) => new Promise((resolve) => { setTimeout(resolve, seconds * 1000); });

async function request(url, photo) {
  const options = { headers: { Accept: "application/json" } };
  if (photo) {
    options.method = "POST";
    options.body = new FormData();
    options.body.append("file", photo, "photo"); // never the name of the file
  }
  for (let attempt = 1; ; attempt += 1) {
    let response;
    try {
      response = await fetchWithKey(url, options);
    } catch {
      throw new Error(photo
        ? "The service is unreachable, or it rejected the upload. The photo may be too large."
        : "The service is unreachable. Reload the page to try again.");
    }
    if (response.ok) return response.json();
    if ([429, 503].includes(response.status) && attempt < ATTEMPTS) {
      await pause(Math.min(Number(response.headers.get("Retry-After")) || 1, 30) * attempt);
      continue;
    }
    const problem = await response.json().catch(() => ({}));
    throw new Error(
      MESSAGES[problem.code] ?? problem.detail ?? `The service returned status ${response.status}.`,
    );
  }
}

// Where the service requires an API key, ask for it once per tab.
async function fetchWithKey(url, options) {
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
