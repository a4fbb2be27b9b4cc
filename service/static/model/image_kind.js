// The images that a model takes, and how a drawing or a picture becomes one of them.
//
// A drawing is scaled and centred as the images of the training are, of which the page knows one, the example: the
// longer side of its ink becomes that of the example's, and its centre of mass the middle of the image, as in MNIST.
// Lines are as thick as the mean of the training images implies. A picture for a model that learned from files is
// cropped and resized as those were; for any other model of grey images it is ink on paper, treated as a drawing.

import { make } from "../elements.js";
import { fitted, placed, planesOf, resized } from "./picture.js";

const FINE = 8; // an image is drawn so many times larger, and averaged
const LINE_LENGTH = 2.2; // of a typical drawing, in sides of its box
const PAD_LINE = 0.08; // of the canvas's width
const FAINT = 0.15; // how much of a pixel is ink if it counts for the box

export class ImageKind {
  constructor({ shape: [rows, columns, channels], crop, min = 0, max = 1, mean = min }, example) {
    Object.assign(this, { rows, columns, min, max, crop, isGrey: channels === undefined });
    this.isInverted = this.isGrey && mean > (min + max) / 2; // dark ink on light paper
    [this.paper, this.ink] = this.isInverted ? [max, min] : [min, max];
    const values = example === null || !this.isGrey ? null : this.read(example);
    this.box = (values && longerSide(this.shares(values))) || Math.max(rows, columns);
    const inked = (mean - this.paper) / (this.ink - this.paper);
    const width = (inked * rows * columns) / (LINE_LENGTH * this.box);
    this.width = Math.min(Math.max(width, 0.06 * this.box), 0.25 * this.box);
  }

  describeDrawing(isCentred) {
    const { rows, columns, box } = this;
    if (!isCentred) return `The drawing is reduced to ${columns} × ${rows} pixels as it is.`;
    return `The drawing is scaled so that its longer side has ${box} pixels, as that of the example has, and is moved so that its centre of mass is in the middle of ${columns} × ${rows} pixels.`;
  }

  describePicture(isCentred) {
    const { rows, columns, crop } = this;
    const size = `${columns} × ${rows} pixels${this.isGrey ? " of grey" : ""}`;
    if (crop === "center") return `The largest part around the centre is resized to ${size}, as the training pictures were.`;
    if (crop === "pad") return `The picture is resized to ${size} between black borders, as the training pictures were.`;
    if (crop === "none") return `The picture is stretched to ${size}, as the training pictures were.`;
    if (!this.isGrey) return `The largest part around the centre is resized to ${size}.`;
    if (!isCentred) return `The picture is resized to ${size}.`;
    return `The ink of the picture is scaled so that its longer side has ${this.box} pixels, as that of the example has, and is moved so that its centre of mass is in the middle of ${columns} × ${rows} pixels.`;
  }

  // An image as lists of its rows; null for anything else.
  read(given) {
    const flat = Array.isArray(given) ? given.flat(9) : [];
    const depth = this.isGrey ? 1 : 3;
    if (flat.length !== this.rows * this.columns * depth || !flat.every(Number.isFinite)) return null;
    const pixels = this.isGrey ? flat : Array.from({ length: flat.length / 3 }, (_, i) => flat.slice(3 * i, 3 * i + 3));
    return this.#inRows(pixels);
  }

  #inRows(pixels) {
    return Array.from({ length: this.rows }, (_, i) => pixels.slice(i * this.columns, (i + 1) * this.columns));
  }

  // How much of each pixel is ink, 0 to 1.
  shares(values) {
    return values.map((row) => row.map((value) => (value - this.paper) / (this.ink - this.paper)));
  }

  blank() {
    return this.values(this.#inRows(new Array(this.rows * this.columns).fill(0)));
  }

  // The values of a drawing: strokes are lists of points on a canvas.
  drawn(strokes, canvas, isCentred) {
    const points = strokes.flat();
    if (!points.length) return this.blank();
    if (!isCentred) {
      const scale = this.columns / canvas.width;
      return this.values(this.inked(strokes, canvas.width * PAD_LINE * scale, ({ x, y }) => ({ x: x * scale, y: y * scale })));
    }
    const [left, right, top, bottom] = [
      Math.min(...points.map(({ x }) => x)), Math.max(...points.map(({ x }) => x)),
      Math.min(...points.map(({ y }) => y)), Math.max(...points.map(({ y }) => y)),
    ];
    const longer = Math.max(right - left, bottom - top);
    const room = this.box - this.width;
    const scale = longer > 0 ? room / longer : 1;
    const [width, height] = [(right - left) * scale + this.width, (bottom - top) * scale + this.width];
    const [x0, y0] = [(this.columns - width) / 2, (this.rows - height) / 2];
    const at = (dx, dy) => ({ x, y }) => ({
      x: (x - left) * scale + this.width / 2 + x0 + dx,
      y: (y - top) * scale + this.width / 2 + y0 + dy,
    });
    // The shift to the centre of mass leaves all ink inside the image.
    const mass = centreOfMass(this.inked(strokes, this.width, at(0, 0)));
    const within = (shift, start) => Math.min(Math.max(shift, -Math.max(start, 0)), Math.max(start, 0));
    const [dx, dy] = [within(this.columns / 2 - mass.x, x0), within(this.rows / 2 - mass.y, y0)];
    return this.values(this.inked(strokes, this.width, at(dx, dy)));
  }

  // The values of a picture.
  pictured(picture, isCentred) {
    const { rows, columns, crop, min, max } = this;
    const planes = planesOf(picture, this.isGrey);
    if (crop || !this.isGrey) {
      const [low, high] = crop ? [0, 255] : [min, max];
      const found = planes.map((plane) => fitted(plane, columns, rows, crop ?? "center").values.map((value) => low + (value / 255) * (high - low)));
      const [first] = found;
      return this.#rounded(this.#inRows(this.isGrey ? first : first.map((_, i) => found.map((plane) => plane[i]))));
    }
    const ink = inkOf(planes[0]);
    const plane = isCentred ? this.#centred(ink) : fitted(ink, columns, rows, "pad");
    const darkest = Math.max(...plane.values, 1); // thin lines became faint
    return this.values(this.#inRows(plane.values.map((value) => value / darkest)));
  }

  // Resize the box of the ink so that its longer side is that of the example, with its centre of mass in the middle.
  #centred(ink) {
    const { rows, columns, box } = this;
    const [left, top, right, bottom] = boxOf(ink);
    const scale = Math.min(box, Math.max(rows, columns)) / Math.max(right - left, bottom - top);
    const [width, height] = [Math.min(columns, Math.max(1, Math.round((right - left) * scale))), Math.min(rows, Math.max(1, Math.round((bottom - top) * scale)))];
    const small = resized(ink, width, height, [left, top, right, bottom]);
    const mass = centreOfMass(Array.from({ length: height }, (_, i) => small.values.slice(i * width, (i + 1) * width)));
    const within = (place, most) => Math.min(Math.max(Math.round(place), 0), most);
    const found = { width: columns, height: rows, values: new Array(rows * columns).fill(0) };
    return placed(small, found, within(columns / 2 - mass.x, columns - width), within(rows / 2 - mass.y, rows - height));
  }

  // Draw lines and return how much of each pixel they cover.
  inked(strokes, width, at) {
    const canvas = make("canvas");
    [canvas.width, canvas.height] = [this.columns * FINE, this.rows * FINE];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.strokeStyle = "#000";
    traced(context, strokes, width * FINE, (point) => {
      const { x, y } = at(point);
      return { x: x * FINE, y: y * FINE };
    });
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const found = Array.from({ length: this.rows }, () => new Array(this.columns).fill(0));
    for (let i = 0; i < canvas.height; i++) {
      for (let j = 0; j < canvas.width; j++) {
        found[Math.floor(i / FINE)][Math.floor(j / FINE)] += data[4 * (i * canvas.width + j) + 3];
      }
    }
    return found.map((row) => row.map((sum) => sum / (255 * FINE * FINE)));
  }

  values(shares) {
    return this.#rounded(shares.map((row) => row.map((share) => this.paper + share * (this.ink - this.paper))));
  }

  // Whole numbers where the training images have a range of many.
  #rounded(values) {
    if (Array.isArray(values)) return values.map((value) => this.#rounded(value));
    return this.max - this.min >= 8 ? Math.round(values) : Number(values.toFixed(4));
  }

  // Paint an image on a canvas, whose pixels are larger by a whole number or any other.
  paint(canvas, values) {
    const small = Object.assign(make("canvas"), { width: this.columns, height: this.rows });
    const context = small.getContext("2d");
    const image = context.createImageData(this.columns, this.rows);
    values.flat().forEach((pixel, i) => {
      const light = [pixel].flat().map((value) => (255 * (value - this.min)) / (this.max - this.min));
      image.data.set([...(this.isGrey ? [light[0], light[0], light[0]] : light), 255], 4 * i);
    });
    context.putImageData(image, 0, 0);
    const target = canvas.getContext("2d");
    target.imageSmoothingEnabled = false;
    target.drawImage(small, 0, 0, canvas.width, canvas.height);
  }
}

// Trace strokes as lines with round ends.
export function traced(context, strokes, width, at) {
  Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round" });
  for (const stroke of strokes) {
    context.beginPath();
    const first = at(stroke[0]);
    context.moveTo(first.x, first.y);
    if (stroke.length === 1) context.lineTo(first.x + 0.01, first.y);
    for (const point of stroke.slice(1).map(at)) context.lineTo(point.x, point.y);
    context.stroke();
  }
}

// Return how much of each pixel is ink, 0 to 255: how far it is from the paper, which is the median of the border.
export function inkOf({ width, height, values }) {
  const border = values.filter((_, i) => i < width || i >= width * (height - 1) || i % width === 0 || i % width === width - 1);
  const paper = border.sort((a, b) => a - b)[border.length >> 1];
  const far = values.map((value) => Math.abs(value - paper));
  const most = far.reduce((largest, value) => Math.max(largest, value), 1);
  return { width, height, values: far.map((value) => (value < 0.1 * most ? 0 : (255 * value) / most)) };
}

// Return [left, top, right, bottom] of the ink of a plane, or all of it if it has none.
function boxOf({ width, height, values }) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  values.forEach((value, i) => {
    if (value <= 255 * FAINT) return;
    const [x, y] = [i % width, Math.floor(i / width)];
    [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x + 1), Math.max(bottom, y + 1)];
  });
  return right ? [left, top, right, bottom] : [0, 0, width, height];
}

function longerSide(shares) {
  const [left, top, right, bottom] = boxOf({ width: shares[0].length, height: shares.length, values: shares.flat().map((share) => 255 * share) });
  return Math.max(right - left, bottom - top);
}

function centreOfMass(shares) {
  let [total, x, y] = [0, 0, 0];
  shares.forEach((row, i) => row.forEach((share, j) => {
    total += share;
    x += share * (j + 0.5);
    y += share * (i + 0.5);
  }));
  return total ? { x: x / total, y: y / total } : { x: shares[0].length / 2, y: shares.length / 2 };
}
