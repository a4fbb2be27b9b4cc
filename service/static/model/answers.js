// An answer of the model: labels as bars, numbers, and what else the answer has.

import { bars, make, short, showFaults } from "../elements.js";
import { svg } from "../svg.js";

const STABLE_LABELS = 10; // so few keep their order while a slider moves

// `output` is that of the model's metadata, if it is known.
export function showAnswer(answer, output) {
  const box = make("div");
  if (answer === null || typeof answer !== "object") {
    box.append(numberLine(answer, output?.names[0]));
    return box;
  }
  if ("probabilities" in answer) {
    const label = answer.labels ? answer.labels.join(", ") || "none of the labels" : String(answer.label);
    const labels = Object.keys(answer.probabilities);
    const order = output && labels.length <= STABLE_LABELS ? output.labels.map(String) : undefined;
    box.append(make("p", label, "answer"), bars(answer.probabilities, order));
    if (output?.kind === "classes" && output.threshold !== undefined) {
      const from = Number((100 * output.threshold).toPrecision(3));
      box.append(make("p", `The answer is ${output.labels[1]} from ${from} % on.`, "note threshold"));
    }
  } else {
    for (const [name, value] of Object.entries(answer)) box.append(numberLine(value, name));
  }
  return box;
}

function numberLine(value, name) {
  const line = make("p", short(value), "answer");
  if (name) line.append(" ", make("small", name));
  return line;
}

// What must be known beside the answer: errors, and values that were filled in or are outside the training data.
export function showProblems({ faults, warnings }) {
  if (faults) return [showFaults(faults)];
  if (!warnings?.length) return [];
  const list = make("ul", undefined, "warnings");
  for (const { location, problem } of warnings.slice(0, 5)) {
    const line = make("li");
    line.append(make("b", location.replace(/^instances\.0\.?/, "")), " ", make("span", problem));
    list.append(line);
  }
  if (warnings.length > 5) list.append(make("li", `and ${warnings.length - 5} more`));
  return [list];
}
