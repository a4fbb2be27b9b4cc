
// The form of the report: a field for each column, and the prediction, which this page computes.
const PAGE = { place: document.getElementById("try-out"), shownLabels: 12, listedCategories: 200 };

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function field(column, i) {
  const id = `try-${i}`;
  const typical = TYPICAL[i];
  let input;
  if (column.kind === "category" && column.categories.length <= PAGE.listedCategories) {
    const options = column.categories.map((text) => element("option", { value: text, textContent: text || "(empty text)" }));
    if (column.fill !== null) options.push(element("option", { value: "", textContent: "(missing)" }));
    input = element("select", { id }, ...options);
    input.selectedIndex = Math.max(0, column.categories.indexOf(typical));
    input.read = () => column.categories[input.selectedIndex] ?? null;
  } else {
    const isNumber = column.kind === "number";
    input = element("input", { id, type: isNumber ? "number" : "text", value: typical, autocomplete: "off" });
    if (isNumber) input.step = "any";
    input.placeholder = column.fill === null ? "" : "missing";
    input.read = () => (input.value === "" ? null : isNumber ? Number(input.value) : input.value);
  }
  return [element("p", {}, element("label", { htmlFor: id, textContent: column.name }), input), input];
}

function answerLines(answer) {
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 6 });
  if (typeof answer === "number") return [[model.output.names[0], number.format(answer), null]];
  if (!Object.hasOwn(answer, "probabilities")) return Object.entries(answer).map(([name, value]) => [name, number.format(value), null]);
  const ranked = Object.entries(answer.probabilities).sort((one, other) => other[1] - one[1]);
  return ranked.slice(0, PAGE.shownLabels).map(([label, share]) => [label, percent(share), share]);
}

function show(inputs, output) {
  try {
    const [answer] = predict([inputs.map((input) => input.read())]);
    output.replaceChildren(
      ...answerLines(answer).map(([name, text, share]) => {
        const bar = element("i", {});
        if (share !== null) bar.style.width = `${100 * share}%`;
        return element("p", {}, element("span", { textContent: name }), element("b", { textContent: text }), bar);
      }),
    );
  } catch (error) {
    if (!(error instanceof RowError)) throw error;
    output.replaceChildren(element("p", { className: "warning", textContent: error.message.replace("rows.0.", "") }));
  }
}

const made = model.columns.map(field);
const output = element("div", { id: "try-answer" });
output.setAttribute("role", "status");
const form = element("form", {}, ...made.map(([line]) => line));
const inputs = made.map(([, input]) => input);
form.addEventListener("input", () => show(inputs, output));
form.addEventListener("submit", (event) => event.preventDefault());
PAGE.place.replaceChildren(form, output);
show(inputs, output);
