// A canvas to draw on, for models that take an image of one channel, and beside it the image that the network gets.
//
// A drawing is scaled and centred as the images of the training are, of which the page knows one, the example: the
// longer side of its ink becomes that of the example's, and its centre of mass the middle of the image, as in MNIST.
// Lines are as thick as the mean of the training images implies.

import { make } from "../elements.js";

const SIDE = 280; // of the canvas, in its own pixels
const FINE = 8; // an image is drawn so many times larger, and averaged
const PEN_STEP = 10; // of an arrow key
const LINE_LENGTH = 2.2; // of a typical drawing, in sides of its box

export function makeDrawing(column, example, changed) {
  const [rows, columns] = column.shape;
  const image = new ImageKind(column, example);
  const element = make("div", undefined, "drawing");
  const canvas = make("canvas");
  Object.assign(canvas, { width: SIDE, height: Math.round((SIDE * rows) / columns), tabIndex: 0, className: "pad" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Drawing for ${column.name}. Draw with the mouse or a finger, or with the keyboard: arrow keys move the pen, the space bar lowers and lifts it.`);
  const seen = make("canvas", undefined, "pixels");
  Object.assign(seen, { width: columns, height: rows });
  seen.setAttribute("role", "img");
  seen.setAttribute("aria-label", "What the network sees");
  const note = make("p", undefined, "note");

  let strokes = [];
  let pen = { x: canvas.width / 2, y: canvas.height / 2, isDown: false, isUsed: false };

  const centred = make("input");
  Object.assign(centred, { type: "checkbox", checked: true });
  const send = () => {
    draw();
    const values = centred.checked ? image.centred(strokes, canvas) : image.plain(strokes, canvas);
    image.paint(seen, values);
    changed(values);
  };
  const draw = () => {
    const context = canvas.getContext("2d");
    context.fillStyle = image.isInverted ? "#fff" : "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.strokeStyle = context.fillStyle === "#ffffff" ? "#000" : "#fff";
    traced(context, strokes, canvas.width * 0.08, (point) => point);
    if (pen.isUsed && document.activeElement === canvas) {
      context.strokeStyle = pen.isDown ? "#f0923f" : "#8891a8";
      context.lineWidth = 2;
      context.strokeRect(pen.x - 8, pen.y - 8, 16, 16);
    }
  };
  const describe = () => {
    note.textContent = centred.checked ? image.description() : `The drawing is reduced to ${columns} × ${rows} pixels as it is.`;
  };

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * canvas.width, y: ((event.clientY - box.top) / box.height) * canvas.height };
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    strokes.push([place(event)]);
    send();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId) || !strokes.length) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const one of all.length ? all : [event]) strokes.at(-1).push(place(one));
    send();
  });
  canvas.addEventListener("keydown", (event) => {
    const [right, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    if (right === undefined && event.key !== " ") return;
    event.preventDefault();
    pen.isUsed = true;
    if (event.key === " ") {
      pen.isDown = !pen.isDown;
      if (pen.isDown) strokes.push([{ x: pen.x, y: pen.y }]);
    } else {
      pen.x = Math.min(Math.max(pen.x + right * PEN_STEP, 0), canvas.width);
      pen.y = Math.min(Math.max(pen.y + down * PEN_STEP, 0), canvas.height);
      if (pen.isDown) strokes.at(-1).push({ x: pen.x, y: pen.y });
    }
    if (pen.isDown) send();
    else draw();
  });
  canvas.addEventListener("blur", () => { pen.isDown = false; draw(); });

  const button = (title, act) => {
    const made = make("button", title, "quiet");
    made.type = "button";
    made.addEventListener("click", act);
    return made;
  };
  const clear = () => { strokes = []; pen = { ...pen, isDown: false }; send(); };
  const buttons = make("p", undefined, "buttons");
  buttons.append(button("Undo", () => { strokes.pop(); send(); }), button("Clear", clear));
  if (example !== null) {
    buttons.append(button("Example", () => { strokes = []; draw(); set(example); changed(example); }));
  }
  const label = make("label", undefined, "switch");
  label.append(centred, make("b", "Scale and centre"));
  centred.addEventListener("change", () => { describe(); if (strokes.length) send(); });

  // Show an image that was not drawn: the example, or one of the request as JSON.
  const set = (given) => {
    const values = image.read(given);
    if (values) image.paint(seen, values);
  };
  const [left, side] = [make("div"), make("div")];
  const title = make("h3", "What the network sees");
  left.append(make("h3", "Draw"), canvas, buttons);
  side.append(title, seen, label, note);
  element.append(left, side);
  draw();
  describe();
  if (example !== null) set(example);
  return { element, set };
}

function traced(context, strokes, width, at) {
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

// The images of a model: their size, the values of paper and ink, and where in the image the ink is.
class ImageKind {
  constructor({ shape: [rows, columns], min = 0, max = 1, mean = min }, example) {
    Object.assign(this, { rows, columns });
    this.isInverted = mean > (min + max) / 2; // dark ink on light paper
    [this.paper, this.ink] = this.isInverted ? [max, min] : [min, max];
    const values = example === null ? null : this.read(example);
    this.box = (values && longerSide(this.shares(values))) || Math.max(rows, columns);
    const inked = (mean - this.paper) / (this.ink - this.paper);
    const width = (inked * rows * columns) / (LINE_LENGTH * this.box);
    this.width = Math.min(Math.max(width, 0.06 * this.box), 0.25 * this.box);
  }

  description() {
    const { rows, columns, box } = this;
    return `The drawing is scaled so that its longer side has ${box} pixels, as that of the example has, and is moved so that its centre of mass is in the middle of ${columns} × ${rows} pixels.`;
  }

  // An image as lists of its rows; null for anything else.
  read(given) {
    const flat = Array.isArray(given) ? given.flat(9) : [];
    if (flat.length !== this.rows * this.columns || !flat.every(Number.isFinite)) return null;
    return Array.from({ length: this.rows }, (_, i) => flat.slice(i * this.columns, (i + 1) * this.columns));
  }

  // How much of each pixel is ink, 0 to 1.
  shares(values) {
    return values.map((row) => row.map((value) => (value - this.paper) / (this.ink - this.paper)));
  }

  plain(strokes, canvas) {
    const scale = this.columns / canvas.width;
    return this.values(this.inked(strokes, canvas.width * 0.08 * scale, ({ x, y }) => ({ x: x * scale, y: y * scale })));
  }

  centred(strokes, canvas) {
    const points = strokes.flat();
    if (!points.length) return this.plain(strokes, canvas);
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

  // Values of pixels, whole numbers where the training images have a range of many.
  values(shares) {
    const [paper, range] = [this.paper, this.ink - this.paper];
    const isWhole = Math.abs(range) >= 8;
    return shares.map((row) => row.map((share) => (isWhole ? Math.round(paper + share * range) : Number((paper + share * range).toFixed(4)))));
  }

  paint(canvas, values) {
    const context = canvas.getContext("2d");
    this.shares(values).forEach((row, i) => row.forEach((share, j) => {
      const light = Math.round(255 * (this.isInverted ? 1 - share : share));
      context.fillStyle = `rgb(${light} ${light} ${light})`;
      context.fillRect(j, i, 1, 1);
    }));
  }
}

function longerSide(shares) {
  const [rows, columns] = [[], []];
  shares.forEach((row, i) => row.forEach((share, j) => { if (share > 0.15) { rows.push(i); columns.push(j); } }));
  if (!rows.length) return 0;
  return 1 + Math.max(Math.max(...rows) - Math.min(...rows), Math.max(...columns) - Math.min(...columns));
}

function centreOfMass(shares) {
  let [total, x, y] = [0, 0, 0];
  shares.forEach((row, i) => row.forEach((share, j) => {
    total += share;
    x += share * (j + 0.5);
    y += share * (i + 0.5);
  }));
  return { x: x / total, y: y / total };
}
