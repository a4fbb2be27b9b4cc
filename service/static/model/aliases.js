// The aliases of a model: where they point and how they moved. On the admin listener a dialog moves them.

import { make, showFaults } from "../elements.js";
import { setKey } from "../page.js";

export async function prepareAliases(data, ask, signal) {
  const place = document.getElementById("aliases");
  const path = `models/${data.name}/aliases`;
  const show = (found) => {
    place.replaceChildren(
      make("h3", "Aliases"),
      ...Object.entries(found.aliases).map(([alias, state]) => describe(alias, state, found)),
      ...(data.movesAliases ? [actions([["New alias", () => openDialog(newAlias(found))]])] : []),
    );
    if (!data.movesAliases && data.adminPort) {
      place.append(make("p", `Operators move aliases on this page of the admin listener, port ${data.adminPort}.`, "note"));
    }
    place.hidden = false;
  };
  const describe = (alias, state, found) => {
    const box = make("div", undefined, "alias-box");
    const line = make("p", undefined, "alias-line");
    line.append(make("b", alias), ` → version ${state.version}`);
    if (state.protected) line.append(" ", make("span", "protected", "version"));
    if (!state.is_set) line.append(" ", make("span", "not set: the newest version", "note"));
    box.append(line);
    if (data.movesAliases) box.append(actions(movesOf(alias, state, found)));
    if (state.history.length) box.append(history(alias, state.history));
    return box;
  };
  const movesOf = (alias, state, found) => [
    ["Move", () => openDialog(move(alias, state, found))],
    ["Promote", () => openDialog(promote(alias, state, found))],
    ...(state.rollback_to ? [["Roll back", () => openDialog(rollback(alias, state))]] : []),
    ...(state.is_set ? [[state.protected ? "End protection" : "Protect", () => openDialog(protect(alias, state))]] : []),
  ];
  const actions = (made) => {
    const line = make("p", undefined, "buttons");
    for (const [title, act] of made) {
      const button = make("button", title, "quiet");
      button.type = "button";
      button.addEventListener("click", act);
      line.append(button);
    }
    return line;
  };
  const openDialog = (kind) => askOperator(kind, { path, ask, signal, show });

  const response = await ask(path, { signal });
  const body = await response.json();
  if (response.ok) show(body);
  else {
    place.replaceChildren(make("h3", "Aliases"), showFaults(body.error));
    place.hidden = false;
  }
}

function history(alias, moves) {
  const details = make("details");
  const count = moves.length === 1 ? "1 move" : `${moves.length} moves`;
  const scroll = make("div", undefined, "scroll");
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", `Moves of ${alias}`);
  const table = make("table");
  const head = make("tr");
  for (const title of ["When", "Version", "Who", "Why"]) {
    const cell = make("th", title);
    cell.scope = "col";
    head.append(cell);
  }
  const body = make("tbody");
  for (const one of moves) {
    const row = make("tr");
    const kind = one.rollback ? " (rollback)" : one.protected ? " (protected)" : "";
    row.append(
      make("td", `${one.when.slice(0, 16).replace("T", " ")} UTC`),
      make("td", `${one.version}${kind}`),
      make("td", one.who),
      make("td", one.why),
    );
    body.append(row);
  }
  const top = make("thead");
  top.append(head);
  table.append(top, body);
  scroll.append(table);
  details.append(make("summary", `History: ${count}`), scroll);
  return details;
}

// The moves: a title, a sentence that says what happens, fields, the alias, the action below it, and the body ----------

const effect = (alias, version, to) =>
  alias === "default"
    ? `Requests without a version will get version ${to} in place of ${version}.`
    : `Requests for ${alias} will get version ${to} in place of ${version}.`;

const versionField = ({ versions }, chosen) => ({ name: "version", title: "Version", options: [...versions].reverse(), value: chosen });
const forceField = ({ protected: isProtected }) => (isProtected ? [{ name: "force", title: "It is protected: move it nevertheless", type: "checkbox" }] : []);
const expectedOf = (state) => (state.is_set ? state.version : null);

const move = (alias, state, found) => ({
  title: `Move ${alias}`,
  words: ({ version }) => effect(alias, state.version, version),
  fields: [versionField(found, state.version), ...forceField(state)],
  alias,
  body: ({ version, force }) => ({ version: Number(version), expected: expectedOf(state), ...(force ? { force } : {}) }),
});

const promote = (alias, state, found) => ({
  title: `Promote to ${alias}`,
  words: ({ version }) => `${effect(alias, state.version, version)} The alias moves only if the version passes the gates.`,
  fields: [
    versionField(found, found.versions.at(-1)),
    { name: "gates", title: "Gates, separated by commas", type: "text", value: "", placeholder: "accuracy>=default" },
  ],
  alias,
  body: ({ version, gates }) => ({
    version: Number(version),
    expected: expectedOf(state),
    gates: gates.split(",").map((gate) => gate.trim()).filter(Boolean),
  }),
});

const rollback = (alias, state) => ({
  title: `Roll ${alias} back`,
  words: () => effect(alias, state.version, state.rollback_to),
  fields: forceField(state),
  alias,
  action: "rollback",
  body: ({ force }) => (force ? { force } : {}),
});

const protect = (alias, state) => ({
  title: state.protected ? `End the protection of ${alias}` : `Protect ${alias}`,
  words: () => (state.protected ? "Everyone with the scope admin may then move it." : "It then moves only by a gate, or by force."),
  fields: [],
  alias,
  action: "protection",
  body: () => ({ protected: !state.protected }),
});

const newAlias = (found) => ({
  title: "New alias",
  words: ({ alias, version }) => `Requests for ${alias || "the alias"} will get version ${version}.`,
  fields: [{ name: "alias", title: "Alias", type: "text", value: "", placeholder: "candidate", required: true }, versionField(found, found.versions.at(-1))],
  body: ({ version }) => ({ version: Number(version), expected: null }),
});

// Show what a move does, and make it if the operator confirms it with a reason.
function askOperator(kind, { path, ask, signal, show }) {
  const dialog = make("dialog", undefined, "panel");
  const form = make("form");
  const title = make("h2", kind.title);
  title.id = "dialog-title";
  dialog.setAttribute("aria-labelledby", title.id);
  const words = make("p");
  const fields = [...kind.fields, { name: "why", title: "Why", type: "text", value: "", required: true }].map(makeInput);
  const keyField = makeInput({ name: "key", title: "API key with the scope admin", type: "password", value: "" });
  keyField.label.hidden = true;
  const result = make("div");
  result.setAttribute("role", "alert");
  const [confirm, cancel] = [make("button", kind.title), make("button", "Cancel", "quiet")];
  cancel.type = "button";
  const line = make("p", undefined, "go");
  line.append(confirm, cancel);
  form.append(title, words, ...fields.map(({ label }) => label), keyField.label, result, line);
  dialog.append(form);

  const values = () => Object.fromEntries(fields.map(({ name, input }) => [name, input.type === "checkbox" ? input.checked : input.value]));
  const describe = () => { words.textContent = make("p", kind.words(values())).textContent; };
  form.addEventListener("input", describe);
  describe();
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  signal.addEventListener("abort", () => dialog.remove());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = values();
    confirm.disabled = true;
    if (keyField.input.value) setKey(keyField.input.value.trim(), "admin");
    const below = [kind.alias ?? given.alias.trim(), ...(kind.action ? [kind.action] : [])];
    try {
      const response = await ask(`${path}/${below.map(encodeURIComponent).join("/")}`, {
        scope: "admin",
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ ...kind.body(given), why: given.why }),
        signal,
      });
      const body = await response.json();
      if (response.ok) {
        show(body);
        dialog.close();
        return;
      }
      if (response.status === 401 || response.status === 403) {
        keyField.label.hidden = false;
        keyField.input.focus();
        result.replaceChildren(showFaults({ code: "API key", message: "Moves of aliases require a key with the scope admin. It stays in the memory of this page.", faults: [] }));
      } else {
        result.replaceChildren(showFaults(body.error));
      }
    } catch (problem) {
      if (problem.name !== "AbortError") result.replaceChildren(showFaults({ code: "no response", message: String(problem), faults: [] }));
    } finally {
      confirm.disabled = false;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
}

function makeInput({ name, title, type, options, value, placeholder, required }) {
  const label = make("label", undefined, type === "checkbox" ? "switch" : "");
  const input = make(options ? "select" : "input");
  if (options) {
    input.append(...options.map((one) => make("option", String(one))));
    input.value = String(value);
  } else {
    Object.assign(input, { type, value: value ?? "", autocomplete: "off", placeholder: placeholder ?? "", required: Boolean(required) });
  }
  if (type === "checkbox") label.append(input, make("b", title));
  else label.append(make("span", title), input);
  return { name, label, input };
}
