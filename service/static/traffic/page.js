// The page /traffic: it asks for the figures every 2 s, unless the tab is hidden.

import { barChart, countBars, lineChart, table } from "./charts.js";
import { ask, make, short, showFaults } from "../page.js";

const POLL_MS = 2000;
const NUMBER = "number";

const part = (name) => document.querySelector(`[data-part="${name}"]`);
const empty = (text) => make("p", text, "empty");
const three = (value) => short(Number(Number(value).toPrecision(3)));
const rate = (value) => (value === 0 ? "0" : value < 0.01 ? "< 0.01" : three(value));
const percent = (share) => (share === 0 ? "0 %" : share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);
const clockTime = (seconds) => new Date(1000 * seconds).toLocaleTimeString("en-GB");
const minuteOf = (seconds) => clockTime(seconds).slice(0, 5);

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds >= 1) return `${three(seconds)} s`;
  return seconds >= 0.001 ? `${three(1000 * seconds)} ms` : `${three(1e6 * seconds)} µs`;
}

const PERCENTILES = [["p50", "a"], ["p95", "b"], ["p99", "c"]];
const times = (each) => PERCENTILES.map(([name]) => each[`${name}_seconds`]);
const TIME_COLUMNS = PERCENTILES.map(([name]) => [name, NUMBER]);

const SHOW = {
  now({ now }) {
    const tile = (title, value, isBad) => {
      const box = make("div", undefined, isBad ? "bad" : "");
      box.append(make("span", title), make("b", value));
      return box;
    };
    return [
      tile("requests a second", rate(now.requests_per_second)),
      tile("rows a second", rate(now.rows_per_second)),
      tile("failed a second", rate(now.errors_per_second), now.errors_per_second > 0),
      tile("95 % within", now.p95_seconds ? duration(now.p95_seconds) : "–"),
    ];
  },
  rate({ series }) {
    const points = series.map((each) => ({
      values: [Math.max(0, each.requests_per_second - each.failed_per_second), each.failed_per_second],
      title: `${minuteOf(each.time)}: ${rate(each.requests_per_second)} a second, ${rate(each.failed_per_second)} failed`,
    }));
    const ends = { first: minuteOf(series[0].time), last: "now", format: (top) => `${rate(top)} a second` };
    return [barChart("Requests a second in each minute", points, [["answered", "a"], ["failed", "bad"]], ends)];
  },
  times({ series }) {
    const points = series.map((each) => ({ values: times(each) }));
    const ends = { first: minuteOf(series[0].time), last: "now", format: duration };
    return [lineChart("Percentiles of the response time in each minute", points, PERCENTILES, ends)];
  },
  versions({ versions, since }) {
    if (!versions.length) return [empty("No predictions in this time.")];
    const columns = [["Version"], ["Requests", NUMBER], ["a second", NUMBER], ["Rows", NUMBER], ["Failed", NUMBER], ...TIME_COLUMNS];
    const note = make("p", `Rates are since ${minuteOf(since)}.`, "note");
    return [table(columns, versions.map((each) => [
      `${each.model}/${each.version}`, three(each.requests), rate(each.requests_per_second), three(each.rows),
      [percent(each.failed_share), each.failed ? "bad" : ""], ...times(each).map(duration),
    ])), note];
  },
  stages({ stages }) {
    if (stages.every((each) => each.p50_seconds === null)) return [empty("No predictions in this time.")];
    return [table([["Stage"], ...TIME_COLUMNS], stages.map((each) => [each.stage, ...times(each).map(duration)]))];
  },
  errors({ errors }) {
    if (!errors.length) return [empty("No errors in this time.")];
    const most = Math.max(...errors.map(({ count }) => count));
    return [countBars(errors.map(({ code, count, versions }) => ({
      name: versions.length ? `${code} (${versions.join(", ")})` : code, share: count / most, text: three(count), className: "drifted",
    })))];
  },
  batches({ batches }) {
    if (!batches.length) return [empty("No forward passes in this time.")];
    const most = Math.max(...batches.map(({ passes }) => passes));
    return [countBars(batches.map(({ from, to, passes }) => ({
      name: to === null ? `${from} or more` : from === to ? String(from) : `${from} to ${to}`, share: passes / most, text: three(passes),
    })))];
  },
  drift({ drift }) {
    if (!drift.length) return [empty("Too few recent rows, or no statistics of the training data in the models.")];
    const rows = drift.slice(0, 20).map(({ model, version, column, index, limit }) => ({
      name: `${column} (${model}/${version})`,
      share: index / (2 * limit),
      text: index > limit ? `${three(index)}, drift` : three(index),
      className: index > limit ? "drifted" : "",
    }));
    const note = make("p", "Population stability index of recent rows against the training rows. At the middle of the bar is the highest index that chance explains.", "note");
    return [countBars(rows), note];
  },
  recent({ recent }) {
    if (!recent.length) return [empty("No predictions and no errors yet.")];
    const columns = [["Time"], ["Request", "target"], ["Status", NUMBER], ["Took", NUMBER], ["Version"], ["Rows", NUMBER], ["Error"], ["Id"]];
    return [table(columns, recent.map((each) => [
      clockTime(each.time), `${each.method} ${each.target}`, [String(each.status), each.status >= 400 ? "bad" : "good"],
      duration(each.seconds), each.model ? `${each.model}/${each.version}` : "", each.rows ? String(each.rows) : "", each.error,
      each.key ? `${each.request_id} (${each.key})` : each.request_id,
    ]))];
  },
  reloads({ reloads }) {
    if (!reloads.length) return [empty("Nothing has changed since the start.")];
    const tone = { problem: "bad", solved: "good" };
    return [table([["Time"], ["Of"], ["Change", "target"]], reloads.map((each) => [
      new Date(1000 * each.time).toLocaleString("en-GB"), each.subject, [each.text, tone[each.kind] ?? ""],
    ]))];
  },
};

function showModels(select, models) {
  const known = [...select.options].map((option) => option.value);
  for (const name of models.filter((model) => !known.includes(model))) {
    const option = make("option", name);
    option.value = name;
    select.append(option);
  }
}

const whenVisible = (signal) => new Promise((resolve) => {
  if (!document.hidden) resolve();
  document.addEventListener("visibilitychange", () => { if (!document.hidden) resolve(); }, { signal });
});

export async function start({ signal }) {
  const form = document.querySelector(".choices");
  const [status, faulty] = [form.querySelector(".status"), document.querySelector(".faulty")];
  const { model, minutes } = form.elements;
  const windows = [...minutes.options].map((option) => Number(option.value));
  let wake = () => {};
  let isChosen = false; // the time, by the user
  let first; // the time of the first minute with requests

  // Until the user chooses a time: return the shortest one that has all requests, or the shortest if there are none.
  function fittingWindow({ time, series }) {
    first ??= series.find((each) => each.requests_per_second > 0)?.time;
    return windows.find((each) => first === undefined || time - first < 60 * each) ?? windows.at(-1);
  }

  async function update() {
    const query = new URLSearchParams({ model: model.value, minutes: minutes.value });
    try {
      const response = await ask(`traffic?${query}`, { scope: "metrics", headers: { Accept: "application/json" }, signal });
      const found = await response.json();
      if (!response.ok) throw found.error;
      if (found.model !== model.value) return;
      const fitting = isChosen ? Number(minutes.value) : fittingWindow(found);
      if (fitting !== Number(minutes.value)) {
        minutes.value = fitting;
        await update();
        return;
      }
      showModels(model, found.models);
      for (const [name, show] of Object.entries(SHOW)) part(name).replaceChildren(...show(found));
      status.textContent = `updated ${clockTime(found.time)}`;
      faulty.replaceChildren();
    } catch (problem) {
      if (signal.aborted) return;
      const error = problem.code ? problem : { code: "no response", message: String(problem), faults: [] };
      faulty.replaceChildren(showFaults({ faults: [], ...error }));
    }
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  minutes.addEventListener("change", () => { isChosen = true; });
  form.addEventListener("change", () => wake());
  form.hidden = false;
  while (!signal.aborted) {
    await whenVisible(signal);
    await update();
    await new Promise((resolve) => { wake = resolve; setTimeout(resolve, POLL_MS); });
  }
}
