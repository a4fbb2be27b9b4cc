// The request of the form as code to copy.

import { printable } from "../elements.js";
import { predictPath } from "./predictor.js";

export const LANGUAGES = ["curl", "Python", "JavaScript"];

export function snippet(language, data, row, needsKey) {
  const url = new URL(predictPath(data), new URL(document.body.dataset.root, location.href)).href;
  const body = { instances: [row] };
  return { curl, Python: python, JavaScript: javascript }[language](url, body, needsKey);
}

function curl(url, body, needsKey) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const key = needsKey ? ' -H "Authorization: Bearer $FORWARD_PASS_KEY"' : "";
  return `curl${key} ${quoted(url)} -d ${quoted(printable(JSON.stringify(body)))}`;
}

function python(url, body, needsKey) {
  const imports = needsKey ? "import os\n\nimport requests\n" : "import requests\n";
  const headers = needsKey ? ', headers={"Authorization": f"Bearer {os.environ[\'FORWARD_PASS_KEY\']}"}' : "";
  return `${imports}
response = requests.post(${pythonText(url)}, json=${pythonValue(body)}${headers})
response.raise_for_status()
print(response.json()["predictions"])`;
}

function pythonValue(value) {
  if (Array.isArray(value)) return `[${value.map(pythonValue).join(", ")}]`;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return pythonText(value);
  return `{${Object.entries(value).map(([key, item]) => `${pythonText(key)}: ${pythonValue(item)}`).join(", ")}}`;
}

// JSON's escapes mean the same in Python, but for pairs of surrogates.
function pythonText(text) {
  return JSON.stringify(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (letter) => {
    const code = letter.codePointAt(0);
    return code > 0xffff ? `\\U${code.toString(16).padStart(8, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

function javascript(url, body, needsKey) {
  const key = needsKey ? ", Authorization: `Bearer ${key}`" : "";
  return `const response = await fetch(${JSON.stringify(url)}, {
  method: "POST",
  headers: { "Content-Type": "application/json"${key} },
  body: JSON.stringify(${printable(JSON.stringify(body))}),
});
console.log((await response.json()).predictions);`;
}
