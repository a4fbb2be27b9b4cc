// A model that this browser computes: the export of `models export --to javascript`, which the service has at
// models/NAME/versions/NUMBER/model.js.
//
// A browser imports a URL without an API key. So the export is fetched as text, and its two lines of data are given to
// static/runtime.js, which is the program of all exports.

const DATA = /^const (MODEL|WEIGHTS) = JSON\.parse\((".*")\);$/gm;

// Return what the export has: model, predict(rows), check(), RowError; and its parts encode, layers and decode.
export async function openModel(path, ask, signal) {
  const response = await ask(path, { signal });
  if (!response.ok) throw new Error((await response.json()).error.message);
  const found = {};
  for (const [, name, literal] of (await response.text()).matchAll(DATA)) found[name] = JSON.parse(JSON.parse(literal));
  const { open } = await import("./runtime.js");
  return open(found.MODEL, found.WEIGHTS);
}
