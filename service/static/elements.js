// Elements and texts that all pages share. Text of models and requests is untrusted: it is set as text only, with
// characters that are not visible as escapes.

// Show a character that is not visible as a JSON escape, as the service does: a direction mark would reorder the text
// around it. JSON text keeps its meaning, as these characters occur in its strings only.
export const printable = (text) => text.replace(/(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu, (letter) => {
  const escaped = JSON.stringify(letter).slice(1, -1);
  if (escaped !== letter) return escaped;
  return letter.split("").map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");
});

export const make = (tag, text, className) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = printable(text);
  if (className) element.className = className;
  return element;
};

// The ten most probable labels, the first one first; or the given labels in their order.
export function bars(probabilities, labels) {
  const box = make("div", undefined, "bars");
  const ranked = labels
    ? labels.map((label) => [label, probabilities[label]])
    : Object.entries(probabilities).sort((a, b) => b[1] - a[1]).slice(0, 10);
  for (const [label, share] of ranked) {
    const bar = make("span", undefined, "bar");
    const fill = make("i");
    fill.style.width = `${100 * share}%`;
    bar.append(fill);
    const percent = share > 0.9995 ? "> 99.9 %" : share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
    box.append(make("b", label), bar, make("span", percent, "share"));
  }
  return box;
}

// A number with six digits, or all before the decimal point, and separators: 425,453. The full response has the others.
export function short(value) {
  const size = Math.abs(value);
  if (typeof value !== "number" || size === 0) return String(value);
  if (size < 1e-4 || size >= 1e15) return value.toPrecision(6);
  return value.toLocaleString("en", { maximumFractionDigits: Math.max(0, 5 - Math.floor(Math.log10(size))) });
}

// JSON with each innermost list on one line, so that the rows of an image are lines.
export function compact(value) {
  return printable(JSON.stringify(value, null, 1)).replace(/\[[^[\]{}]*\]/g, (list) => list.replace(/\s+/g, " "));
}

export function showFaults(error) {
  const list = make("ul", undefined, "faults");
  const faults = error.faults.length ? error.faults : [{ location: error.code, problem: error.message, fix: "" }];
  for (const fault of faults) {
    const line = make("li");
    line.append(make("b", fault.location), printable(` ${fault.problem}`));
    if (fault.fix) line.append(make("em", fault.fix));
    list.append(line);
  }
  return list;
}
