// Predictions of the page: by the service, or by this browser with the exported model.

import { make } from "../elements.js";
import { openModel } from "../local_model.js";

// Sends the newest value and no other, one at a time: a slider makes more values than the service should answer. A value
// that a busy service refused is sent again, if there is no newer one.
export class Live {
  #next;
  #busy = false;
  #stopped = false;

  constructor(compute, show, signal) {
    Object.assign(this, { compute, show, signal });
  }

  async update(value) {
    this.#next = { value };
    this.#stopped = false;
    if (this.#busy) return;
    this.#busy = true;
    while (this.#next && !this.signal.aborted) {
      const { value: newest } = this.#next;
      this.#next = undefined;
      const found = await this.compute(newest);
      if (!this.signal.aborted && !this.#stopped) this.show(found);
      if (found.retryAfter && !this.#next) {
        await new Promise((resolve) => { setTimeout(resolve, 1000 * found.retryAfter); });
        if (!this.#stopped) this.#next ??= { value: newest };
      }
    }
    this.#busy = false;
  }

  // Show no answer until the next value, also if one is on its way.
  stop() {
    this.#next = undefined;
    this.#stopped = true;
  }
}

export class Predictor {
  #local = null;
  #isLocal = false;

  constructor(data, ask, signal) {
    Object.assign(this, { data, ask, signal });
    this.path = predictPath(data);
  }

  // Return { answers, explanations, intervals, sets, warnings, faults, status }: without `answers`, `faults` says why.
  // `asked` has keys of the request beside its rows, which only the service answers.
  async predict(rows, asked = {}) {
    if (this.#isLocal) return this.#compute(rows, "computed in this browser");
    const started = performance.now();
    try {
      const response = await this.ask(`${this.path}?warnings=true`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ instances: rows, ...asked }),
        signal: this.signal,
      });
      const body = await response.json();
      if (!response.ok) {
        const retryAfter = response.status === 503 ? Number(response.headers.get("Retry-After")) || 1 : 0; // it is busy
        return { faults: body.error, retryAfter, status: `status ${response.status}${retryAfter ? ", asked again soon" : ""}` };
      }
      const spent = Math.max(1, Math.round(performance.now() - started));
      const status = `version ${body.version}, ${spent} ms`;
      const { predictions: answers, explanations, intervals, sets, warnings } = body;
      return { answers, explanations, intervals, sets, warnings, status, asked };
    } catch (problem) {
      if (this.#local) return this.#compute(rows, "the service does not answer: computed in this browser");
      return { faults: { code: "no response", message: String(problem), faults: [] }, status: "" };
    }
  }

  #compute(rows, status) {
    try {
      return { answers: this.#local.predict(rows), warnings: [], status };
    } catch (problem) {
      if (!(problem instanceof this.#local.RowError)) throw problem;
      return { faults: { code: "row", message: problem.message.replace(/^rows\.0\.?/, ""), faults: [] }, status };
    }
  }

  // Return the switch between the service and this browser; nothing for a model that is too large.
  controls(changed) {
    if (!this.data.exportable) return [];
    const label = make("label", undefined, "switch");
    const input = make("input");
    input.type = "checkbox";
    const note = make("p", undefined, "note");
    input.addEventListener("change", async () => {
      this.#isLocal = false;
      if (input.checked) {
        note.textContent = "The model is being fetched.";
        note.textContent = await this.#open();
        this.#isLocal = input.checked = this.#local !== null;
      } else {
        note.textContent = "";
      }
      changed();
    });
    label.append(input, make("b", "Compute in this browser"));
    return [label, note];
  }

  // Fetch the model and check it; return what the user is told.
  async #open() {
    try {
      const { name, version } = this.data;
      const path = `models/${name}/versions/${version}/model.js`;
      this.#local ??= await openModel(path, this.ask, this.signal);
      const wrong = this.#local.check();
      if (wrong) throw new Error(`${wrong} of its golden rows give other answers here`);
      return `Version ${version} is in this page: nothing is sent, and it works without a network.`;
    } catch (problem) {
      this.#local = null;
      return `The model cannot be computed here: ${problem.message}`;
    }
  }
}

// The page without a version in its path asks the model, whose default version may change meanwhile.
export function predictPath({ name, version }) {
  const isOfVersion = /\/versions\/[^/]+\/?$/.test(location.pathname);
  return isOfVersion ? `models/${name}/versions/${version}/predict` : `models/${name}/predict`;
}
