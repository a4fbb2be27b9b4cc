// Pictures from files, as the values of an image column: decoded by the browser, then cropped, resized and made grey by
// the arithmetic of Pillow, with which training and the service read files.

const MAX_SIDE = 2048; // of a decoded picture; larger ones are reduced by the browser
const MAX_BYTES = 64 << 20;
const BITS = 22; // of a share, as Pillow has it
const UNIT = 1 << BITS;

// Return { width, height, data } of a PNG or JPEG file, RGBA, upright, transparency on white. Error if it is none.
export async function readPicture(file) {
  if (file.size > MAX_BYTES) throw new Error(`expected a file of at most ${MAX_BYTES >> 20} MiB`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error("expected a PNG or JPEG file that is not damaged");
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

// Return the planes of a picture, each { width, height, values } of 0 to 255: grey (ITU-R 601), or red, green and blue.
export function planesOf({ width, height, data }, isGrey) {
  const pixels = Array.from({ length: width * height }, (_, i) => 4 * i);
  const planes = isGrey
    ? [pixels.map((i) => (19595 * data[i] + 38470 * data[i + 1] + 7471 * data[i + 2] + 32768) >> 16)]
    : [0, 1, 2].map((channel) => pixels.map((i) => data[i + channel]));
  return planes.map((values) => ({ width, height, values }));
}

// Resize a plane to the size of a model. `crop`: "center" keeps the part around the centre that has the sides' ratio,
// "pad" keeps all between borders of `border`, "none" stretches.
export function fitted(plane, width, height, crop, border = 0) {
  const { width: from, height: high } = plane;
  if (crop === "center") {
    const scale = Math.max(width / from, height / high);
    const [left, top] = [Math.max(0, from - width / scale) / 2, Math.max(0, high - height / scale) / 2];
    return resized(plane, width, height, [left, top, from - left, high - top]);
  }
  if (crop === "none") return resized(plane, width, height);
  const scale = Math.min(width / from, height / high);
  const [inner, tall] = [Math.max(1, Math.min(width, Math.round(from * scale))), Math.max(1, Math.min(height, Math.round(high * scale)))];
  const found = { width, height, values: new Array(width * height).fill(border) };
  return placed(resized(plane, inner, tall), found, Math.floor((width - inner) / 2), Math.floor((height - tall) / 2));
}

// Write a plane into another one at a place, and return the latter.
export function placed(plane, target, left, top) {
  for (let i = 0; i < plane.height; i++) {
    for (let j = 0; j < plane.width; j++) target.values[(top + i) * target.width + left + j] = plane.values[i * plane.width + j];
  }
  return target;
}

// Resize the part [left, top, right, bottom] of a plane by a triangle filter as wide as a pixel of the result.
export function resized({ width, height, values }, columns, rows, [left, top, right, bottom] = [0, 0, width, height]) {
  const across = weights(width, columns, left, right);
  const wide = new Array(height * columns);
  for (let i = 0; i < height; i++) {
    across.forEach(([first, shares], j) => { wide[i * columns + j] = weighted(values, i * width + first, 1, shares); });
  }
  const found = new Array(rows * columns);
  weights(height, rows, top, bottom).forEach(([first, shares], i) => {
    for (let j = 0; j < columns; j++) found[i * columns + j] = weighted(wide, first * columns + j, columns, shares);
  });
  return { width: columns, height: rows, values: found };
}

const weighted = (values, first, step, shares) => shares.reduce((sum, share, k) => sum + share * values[first + k * step], UNIT / 2) >> BITS;

// Return for each pixel of the result its first source pixel, and the shares of that and the following ones in 1/UNIT.
// As in Pillow, the ends are float32.
function weights(size, count, start, end) {
  const from = Math.fround(start);
  const scale = Math.fround(Math.fround(end) - from) / count;
  const support = Math.max(1, scale);
  return Array.from({ length: count }, (_, i) => {
    const centre = from + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(size, Math.trunc(centre + support + 0.5));
    const shares = Array.from({ length: last - first }, (_, k) => Math.max(0, 1 - Math.abs((first + k - centre + 0.5) / support)));
    const total = shares.reduce((sum, share) => sum + share, 0);
    return [first, shares.map((share) => Math.round((share / total) * UNIT))];
  });
}
