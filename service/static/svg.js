// Make an SVG element. Attributes may style it, which the Content-Security-Policy allows them; text is a child.
import { printable } from "./elements.js";

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.map((child) => (typeof child === "string" ? printable(child) : child)));
  return element;
}

// Attributes of a line for a weight: colour by sign, width by size relative to the largest of its layer.
export function weightLine(weight, largest) {
  const share = largest > 0 ? Math.min(1, Math.abs(weight) / largest) : 0;
  return { class: weight < 0 ? "weight negative" : "weight positive", "stroke-width": (0.4 + 4.6 * share).toFixed(2) };
}

// A number for a formula: four decimals, or three digits if it is small or large; a whole number without decimals.
export function numeral(value) {
  if (Number.isInteger(value) && Math.abs(value) < 1e5) return String(value).replace("-", "−");
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : value.toFixed(4);
  return text.replace("-", "−").replace("e-", "e−").replace("e+", "e");
}
