// A table of rows: a CSV file is previewed, sent to /predict in pieces that the service allows, and answered as a table.

import { make, short, showFaults } from "../elements.js";
import { cells, quoted, records, separatorOf } from "./csv.js";
import { predictPath } from "./predictor.js";

const MAX_BYTES = 64 << 20; // of a file
const PIECE_BYTES = 1 << 20;
const PREVIEW_ROWS = 20;
const MAX_PREVIEW_COLUMNS = 30;

export function prepareTable(data, ask, signal) {
  if (data.columns[0]?.kind === "array") return;
  const place = document.getElementById("table-form");
  const zone = make("div", undefined, "drop");
  const label = make("label");
  const input = make("input");
  Object.assign(input, { type: "file", accept: ".csv,.tsv,text/csv" });
  label.append(make("b", "A CSV file with a header"), make("small", " choose it, or drop it here"), input);
  zone.append(label);
  const result = make("div", undefined, "table-result");
  result.setAttribute("aria-live", "polite");
  place.append(zone, result);

  let latest = new AbortController();
  const open = async (file) => {
    if (!file) return;
    latest.abort();
    latest = new AbortController();
    if (file.size > MAX_BYTES) {
      result.replaceChildren(fault(`expected a file of at most ${MAX_BYTES >> 20} MiB, found ${Math.ceil(file.size / 2 ** 20)} MiB; models predict reads larger ones`));
      return;
    }
    preview(await file.text(), file.name, { data, ask, signal: AbortSignal.any([signal, latest.signal]), result });
  };
  input.addEventListener("change", () => open(input.files[0]));
  for (const kind of ["dragover", "dragenter"]) {
    zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.add("over"); });
  }
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    open(event.dataTransfer.files[0]);
  });
  document.getElementById("table-section").hidden = false;
}

const fault = (message) => showFaults({ code: "table", message, faults: [] });

function preview(text, name, { data, ask, signal, result }) {
  const [header, ...rows] = records(text.replace(/^\ufeff/, ""));
  if (!rows.length) {
    result.replaceChildren(fault("expected a header and at least one row"));
    return;
  }
  const separator = separatorOf(header);
  const names = cells(header, separator);
  const missing = data.columns.filter((column) => column.required && !names.map((one) => one.trim()).includes(column.name));
  const box = make("div");
  box.append(make("p", `${name}: ${rows.length.toLocaleString("en")} rows`, "note"));
  if (missing.length) box.append(fault(`no column is named ${missing.slice(0, 10).map((column) => column.name).join(", ")}`));
  const shown = make("div");
  const show = (answers) => {
    const extra = answers ? answerCells(answers[0], data.output).map(([title]) => title) : [];
    const lines = rows.slice(0, PREVIEW_ROWS).map((row, i) => [
      ...(answers?.[i] === undefined ? [] : answerCells(answers[i], data.output).map(([, value]) => value)),
      ...cells(row, separator),
    ]);
    shown.replaceChildren(table([...extra, ...names], lines, extra.length));
  };
  show(null);
  const button = make("button", "Predict all rows");
  button.type = "button";
  const status = make("span", undefined, "status");
  const line = make("p", undefined, "go");
  line.append(button, status);
  const faults = make("div");
  button.addEventListener("click", async () => {
    button.disabled = true;
    faults.replaceChildren();
    try {
      const answers = await answered(header, rows, { data, ask, signal }, (done) => {
        status.textContent = `${done.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
      });
      show(answers);
      const link = make("a", "Download the answers");
      link.href = URL.createObjectURL(new Blob(joined(names, rows, separator, answers, data.output), { type: "text/csv" }));
      link.download = `${name.replace(/\.[a-z]+$/i, "")}-answers.csv`;
      signal.addEventListener("abort", () => URL.revokeObjectURL(link.href));
      status.replaceChildren(`${rows.length.toLocaleString("en")} rows predicted `, link);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      faults.replaceChildren(showFaults(problem.error ?? { code: "no response", message: String(problem), faults: [] }));
      status.textContent = "";
    } finally {
      button.disabled = false;
    }
  });
  box.append(line, faults, shown);
  result.replaceChildren(box);
}

// Send the rows in pieces, each with the header, and return all answers.
async function answered(header, rows, { data, ask, signal }, progress) {
  const answers = [];
  const head = header.endsWith("\n") ? header : `${header}\n`;
  while (answers.length < rows.length) {
    const piece = [];
    let size = head.length;
    for (let i = answers.length; i < rows.length && piece.length < data.maxRows; i++) {
      size += rows[i].length;
      if (piece.length && size > PIECE_BYTES) break;
      piece.push(rows[i]);
    }
    const response = await ask(predictPath(data), {
      method: "POST",
      headers: { "Content-Type": "text/csv; header=present" },
      body: head + piece.join(""),
      signal,
    });
    const body = await response.json();
    if (!response.ok) throw Object.assign(new Error(), { error: located(body.error, answers.length) });
    answers.push(...body.predictions);
    progress(answers.length);
  }
  return answers;
}

// The lines in the errors of a piece are those of the piece: say where it begins.
function located(error, before) {
  if (!before) return error;
  const faults = error.faults.map((one) => ({ ...one, location: `${one.location}, after ${before.toLocaleString("en")} rows` }));
  return { ...error, faults };
}

// Return [title, value] of each cell that an answer has.
function answerCells(answer, output) {
  if (answer === null || typeof answer !== "object") return [[output.names?.[0] ?? "prediction", answer]];
  if (!("probabilities" in answer)) return Object.entries(answer);
  if (answer.labels) return [[output.name, answer.labels.join(", ")]];
  return [[`predicted ${output.name}`, answer.label], ["probability", answer.probabilities[String(answer.label)]]];
}

function joined(names, rows, separator, answers, output) {
  const lines = rows.map((row, i) => [...cells(row, separator), ...answerCells(answers[i], output).map(([, value]) => String(value))]);
  const titles = [...names, ...answerCells(answers[0], output).map(([title]) => title)];
  return [titles, ...lines].map((line) => `${line.map(quoted).join(separator)}\n`);
}

function table(titles, lines, predicted) {
  const scroll = make("div", undefined, "scroll");
  Object.assign(scroll, { tabIndex: 0 });
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "The first rows");
  const made = make("table");
  const head = make("tr");
  titles.slice(0, MAX_PREVIEW_COLUMNS).forEach((title, i) => {
    const cell = make("th", title, i < predicted ? "predicted" : "");
    cell.scope = "col";
    head.append(cell);
  });
  const body = make("tbody");
  for (const line of lines) {
    const row = make("tr");
    line.slice(0, MAX_PREVIEW_COLUMNS).forEach((value, i) => {
      row.append(make("td", typeof value === "number" ? short(value) : String(value), i < predicted ? "predicted" : ""));
    });
    body.append(row);
  }
  const top = make("thead");
  top.append(head);
  made.append(top, body);
  scroll.append(made);
  return scroll;
}
