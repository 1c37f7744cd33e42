// From a photo file to the input of a network, as Python does it: Pillow's resampling into the
// stored square (anklealign/io/decode.py), then PyTorch's antialiased one (models/inputs.py). Both
// weight the pixels by a window that grows with the reduction, horizontally first, and round to
// 8 bits after each direction.

const FILTERS = {
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, (x) => cubic(Math.abs(x), -0.5)],
  lanczos: [3, (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0)],
};
const LUMA = [0.299, 0.587, 0.114]; // ITU-R BT.601

function cubic(x, a) {
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

// Pixels are {data, width, height}: RGB bytes in rows.

// Returns the pixels of a photo file: upright, sRGB, transparent areas white.
export async function decode(file, maxMegapixels) {
  let image;
  try {
    image = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error("This browser cannot read the file as a photo. Save it as JPEG or PNG.");
  }
  const { width, height } = image;
  if (width * height > maxMegapixels * 1e6) {
    throw new Error("The photo has too many pixels. Resize it and try again.");
  }
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0);
  image.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; j < data.length; i += 4, j += 3) {
    data[j] = rgba[i];
    data[j + 1] = rgba[i + 1];
    data[j + 2] = rgba[i + 2];
  }
  return { data, width, height };
}

// Returns the stored square, and the box of the photo in it: left, top, width, height.
export function fit(photo, { size, fit: mode, fill }) {
  const { width, height } = photo;
  const whole = [0, 0, size, size];
  if (mode === "stretch") return [resize(photo, size, size, "lanczos"), whole];
  if (mode === "crop") {
    const side = Math.min(width, height);
    const left = (width - side) / 2;
    const top = (height - side) / 2;
    return [resize(photo, size, size, "lanczos", [left, top, left + side, top + side]), whole];
  }
  const longer = Math.max(width, height);
  const [w, h] = [width, height].map((side) => Math.max(1, roundHalfEven((side * size) / longer)));
  const [left, top] = [(size - w) >> 1, (size - h) >> 1];
  const small = resize(photo, w, h, "lanczos");
  const data = new Uint8Array(size * size * 3).fill(fill);
  for (let y = 0; y < h; y += 1) {
    data.set(small.data.subarray(y * w * 3, (y + 1) * w * 3), ((top + y) * size + left) * 3);
  }
  return [{ data, width: size, height: size }, [left, top, w, h]];
}

const roundHalfEven = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)); // as Python

// Returns a network's input, (1, channels, size, size) as one array.
export function toInput(square, { image_size: size, mean, std, interpolation }) {
  const same = square.width === size && square.height === size;
  const { data } = same
    ? square : resize(square, size, size, interpolation === "bilinear" ? "bilinear" : "bicubic");
  const area = size * size;
  const input = new Float32Array(mean.length * area);
  for (let i = 0; i < area; i += 1) {
    const rgb = [0, 1, 2].map((channel) => data[3 * i + channel] / 255);
    const values = mean.length === 1
      ? [rgb[0] * LUMA[0] + rgb[1] * LUMA[1] + rgb[2] * LUMA[2]] : rgb;
    values.forEach((value, k) => { input[k * area + i] = (value - mean[k]) / std[k]; });
  }
  return input;
}

// Returns resized pixels; `box` is the part of the photo that is used: left, top, right, bottom.
export function resize(photo, width, height, filter, box = [0, 0, photo.width, photo.height]) {
  const columns = windows(photo.width, box[0], box[2], width, filter);
  const rows = windows(photo.height, box[1], box[3], height, filter);
  const from = rows[0].start;
  const to = Math.max(...rows.map(({ start, weights }) => start + weights.length));
  const narrow = new Uint8Array((to - from) * width * 3);
  for (let y = from; y < to; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const { start, weights } = columns[x];
      let [r, g, b] = [0, 0, 0];
      for (let k = 0, at = (y * photo.width + start) * 3; k < weights.length; k += 1, at += 3) {
        r += weights[k] * photo.data[at];
        g += weights[k] * photo.data[at + 1];
        b += weights[k] * photo.data[at + 2];
      }
      const out = ((y - from) * width + x) * 3;
      narrow[out] = byte(r);
      narrow[out + 1] = byte(g);
      narrow[out + 2] = byte(b);
    }
  }
  const data = new Uint8Array(width * height * 3);
  const line = width * 3;
  for (let y = 0; y < height; y += 1) {
    const { start, weights } = rows[y];
    for (let x = 0; x < line; x += 1) {
      let sum = 0;
      for (let k = 0, at = (start - from) * line + x; k < weights.length; k += 1, at += line) {
        sum += weights[k] * narrow[at];
      }
      data[y * line + x] = byte(sum);
    }
  }
  return { data, width, height };
}

const byte = (value) => Math.min(255, Math.max(0, Math.floor(value + 0.5)));

// Returns the first source pixel and the weights of each target pixel.
function windows(source, low, high, target, name) {
  const [support, filter] = FILTERS[name];
  const scale = (high - low) / target;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: target }, (_, index) => {
    const center = low + (index + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support * stretch + 0.5));
    const end = Math.min(source, Math.trunc(center + support * stretch + 0.5));
    const weights = new Float64Array(end - start);
    let sum = 0;
    for (let k = 0; k < weights.length; k += 1) {
      weights[k] = filter((start + k - center + 0.5) / stretch);
      sum += weights[k];
    }
    return { start, weights: weights.map((weight) => weight / sum) };
  });
}
