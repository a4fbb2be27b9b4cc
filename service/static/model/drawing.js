// An image for a model: drawn on a canvas, if it is grey, or opened from a file; beside it the image that the network gets.

import { make } from "../elements.js";
import { ImageKind, traced } from "./image_kind.js";
import { readPicture } from "./picture.js";

const SIDE = 280; // of the canvas, in its own pixels
const PEN_STEP = 10; // of an arrow key

// Return { element, set(values) }. `changed(values, isBlank)` is called with each new image.
export function makeDrawing(column, example, changed) {
  const [rows, columns] = column.shape;
  const image = new ImageKind(column, example);
  const canDraw = image.isGrey;
  const element = make("div", undefined, "drawing");
  const canvas = make("canvas");
  Object.assign(canvas, { width: SIDE, height: Math.round((SIDE * rows) / columns), className: "pad" });
  canvas.setAttribute("role", "img");
  if (canDraw) {
    canvas.tabIndex = 0;
    canvas.setAttribute("aria-label", `Drawing for ${column.name}. Draw with the mouse or a finger, or with the keyboard: arrow keys move the pen, the space bar lowers and lifts it.`);
  } else {
    canvas.classList.add("picture");
    canvas.setAttribute("aria-label", `Picture for ${column.name}`);
  }
  const seen = make("canvas", undefined, "pixels");
  Object.assign(seen, { width: columns, height: rows });
  seen.setAttribute("role", "img");
  seen.setAttribute("aria-label", "What the network sees");
  const [note, hint, fault] = [make("p", undefined, "note"), make("p", undefined, "note hint"), make("p", undefined, "problem")];
  fault.setAttribute("role", "alert");

  // What the canvas shows: strokes, or else a picture, or else an image that was given.
  let strokes = [];
  let picture = null;
  let given = null;
  let pen = { x: canvas.width / 2, y: canvas.height / 2, isDown: false, isUsed: false };

  const centred = make("input");
  Object.assign(centred, { type: "checkbox", checked: true });
  const send = () => {
    given = null;
    show();
    const values = picture ? image.pictured(picture, centred.checked) : image.drawn(strokes, canvas, centred.checked);
    image.paint(seen, values);
    changed(values, !picture && !strokes.length);
  };
  const show = () => {
    const context = canvas.getContext("2d");
    context.fillStyle = image.isInverted ? "#fff" : "#000";
    if (canDraw) context.fillRect(0, 0, canvas.width, canvas.height);
    else context.clearRect(0, 0, canvas.width, canvas.height);
    if (given) image.paint(canvas, given);
    if (picture) paintPicture(context, picture);
    context.strokeStyle = image.isInverted ? "#000" : "#fff";
    traced(context, strokes, canvas.width * 0.08, (point) => point);
    if (pen.isUsed && document.activeElement === canvas) {
      context.strokeStyle = pen.isDown ? "#f0923f" : "#8891a8";
      context.lineWidth = 2;
      context.strokeRect(pen.x - 8, pen.y - 8, 16, 16);
    }
    note.textContent = given ? "The image of the row, as it is." : picture ? image.describePicture(centred.checked) : image.describeDrawing(centred.checked);
    if (!canDraw) hint.textContent = "Open a PNG or JPEG file, or drop it on the picture.";
    else if (given) hint.textContent = "This is the image of the row. Draw to replace it.";
    else hint.textContent = strokes.length || picture ? "" : "Draw here, or open a PNG or JPEG file.";
    fault.textContent = "";
    fault.hidden = true;
  };
  const startStroke = (point) => {
    if (!strokes.length) [picture, given] = [null, null];
    strokes.push([point]);
  };

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * canvas.width, y: ((event.clientY - box.top) / box.height) * canvas.height };
  };
  const allowDrawing = () => {
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      startStroke(place(event));
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
        if (pen.isDown) startStroke({ x: pen.x, y: pen.y });
      } else {
        pen.x = Math.min(Math.max(pen.x + right * PEN_STEP, 0), canvas.width);
        pen.y = Math.min(Math.max(pen.y + down * PEN_STEP, 0), canvas.height);
        if (pen.isDown) strokes.at(-1).push({ x: pen.x, y: pen.y });
      }
      if (pen.isDown) send();
      else show();
    });
    canvas.addEventListener("blur", () => { pen.isDown = false; show(); });
  };

  const open = async (file) => {
    if (!file) return;
    try {
      const opened = await readPicture(file);
      [strokes, picture] = [[], opened];
      send();
    } catch (problem) {
      fault.textContent = `${file.name}: ${problem.message}`;
      fault.hidden = false;
    }
  };
  const input = make("input", undefined, "unseen");
  Object.assign(input, { type: "file", accept: "image/png,image/jpeg" });
  input.addEventListener("change", async () => {
    await open(input.files[0]);
    input.value = ""; // the same file may be chosen again
  });
  const opener = make("label", undefined, "button quiet");
  opener.append(make("b", "Open file"), input);
  for (const kind of ["dragover", "dragenter"]) canvas.addEventListener(kind, (event) => event.preventDefault());
  canvas.addEventListener("drop", (event) => {
    event.preventDefault();
    open(event.dataTransfer.files[0]);
  });

  const button = (title, act) => {
    const made = make("button", title, "quiet");
    made.type = "button";
    made.addEventListener("click", act);
    return made;
  };
  const clear = () => {
    [strokes, picture] = [[], null];
    pen = { ...pen, isDown: false };
    send();
  };
  const undo = () => {
    if (!strokes.length) return;
    strokes.pop();
    send();
  };
  const buttons = make("p", undefined, "buttons");
  if (canDraw) buttons.append(button("Undo", undo), button("Clear", clear));
  buttons.append(opener);
  if (example !== null) buttons.append(button("Example", () => { set(example); changed(example, false); }));
  const label = make("label", undefined, "switch");
  label.append(centred, make("b", "Scale and centre"));
  label.hidden = !canDraw;
  centred.addEventListener("change", () => { if (strokes.length || picture) send(); else show(); });

  // Show an image that was not drawn: the example, or one of the request as JSON.
  const set = (values) => {
    const read = image.read(values);
    if (!read) return;
    [strokes, picture, given] = [[], null, read];
    image.paint(seen, read);
    show();
  };
  const [left, side] = [make("div"), make("div")];
  left.append(make("h3", canDraw ? "Draw" : "Picture"), canvas, hint, buttons, fault);
  side.append(make("h3", "What the network sees"), seen, label, note);
  element.append(left, side);
  if (canDraw) allowDrawing();
  show();
  if (example !== null) set(example);
  return { element, set };
}

// Paint a whole picture in the middle of a canvas.
function paintPicture(context, picture) {
  const { canvas } = context;
  const whole = Object.assign(make("canvas"), { width: picture.width, height: picture.height });
  whole.getContext("2d").putImageData(picture, 0, 0);
  const scale = Math.min(canvas.width / picture.width, canvas.height / picture.height);
  const [width, height] = [picture.width * scale, picture.height * scale];
  context.drawImage(whole, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
}
