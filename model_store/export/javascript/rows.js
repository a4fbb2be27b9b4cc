// The rest of this file is the same for all models: it encodes rows, applies the layers, and decodes the outputs.

/** What the model is: its name, version and digest, the columns of a row, and what it predicts. */
export const model = Object.freeze({
  name: MODEL.name,
  version: MODEL.version,
  digest: MODEL.digest,
  description: MODEL.description,
  columns: MODEL.columns,
  output: MODEL.output,
});

/** A value that the model does not accept. Its message names the location, what was expected, and what was found. */
export class RowError extends Error {
  name = "RowError";
}

/**
 * Return the predictions of rows, as the service's `predictions`.
 *
 * A row is an object by the names of the columns, or a list in their order. RowError for a value that is not accepted.
 */
export function predict(rows) {
  if (!Array.isArray(rows)) throw new RowError(`expected a list of rows, found ${shown(rows)}; put one row in a list`);
  return rows.map((row, i) => decode(run(LAYERS, encode(row, `rows.${i}`)), `rows.${i}`));
}

/** Return how many of the model's golden rows give other answers here than in training: 0 if the file is whole. */
export function check() {
  const answers = predict(MODEL.golden.rows);
  return answers.filter((answer, i) => !isNear(answer, MODEL.golden.answers[i])).length;
}

function isNear(found, expected) {
  if (typeof expected === "number") return Math.abs(found - expected) <= 1e-3 * Math.abs(expected) + 1e-5;
  if (expected === null || typeof expected !== "object") return found === expected;
  return Object.keys(expected).every((key) => Object.hasOwn(found, key) && isNear(found[key], expected[key]));
}

// Numbers are rounded as the network rounds them: to float32, or not at all.
const round = MODEL.dtype === "float32" ? Math.fround : (value) => value;

// Rows to features ---------------------------------------------------------------------------------------------------

function encode(row, location) {
  const features = [];
  for (const [i, column] of MODEL.columns.entries()) {
    const place = `${location}.${column.name}`;
    const added = ENCODERS[column.kind](column, cell(row, column, i, location), place).map(round);
    if (!added.every(Number.isFinite)) throw new RowError(`${place}: expected a number that ${MODEL.dtype} can hold`);
    for (const feature of added) features.push(feature);
  }
  return features;
}

/** Return the value of a column in a row, null if it is missing. */
function cell(row, column, position, location) {
  const count = MODEL.columns.length;
  const names = MODEL.columns.map((one) => one.name);
  if (column.kind === "array" && (Array.isArray(row) || ArrayBuffer.isView(row))) return row;
  if (Array.isArray(row)) {
    if (row.length !== count) throw new RowError(`${location}: expected ${count} values, found ${row.length}`);
    return row[position] ?? null;
  }
  if (row === null || typeof row !== "object") {
    throw new RowError(`${location}: expected an object with ${names.join(", ")}; found ${shown(row)}`);
  }
  const unknown = Object.keys(row).find((name) => !names.includes(name));
  if (unknown !== undefined) throw new RowError(`${location}: no column is named ${shown(unknown)}; expected ${names.join(", ")}`);
  return (Object.hasOwn(row, column.name) ? row[column.name] : null) ?? null;
}

const ENCODERS = {
  /** `(value - offset) / scale`; with a linear width w, `(asinh(value / w) - offset) / scale`. */
  number(column, given, location) {
    if (given !== null && !Number.isFinite(given)) {
      throw new RowError(`${location}: expected a finite number, found ${shown(given)}`);
    }
    const value = given ?? filled(column, "a number", location);
    return [scaled(column, compressed(column, value)), ...indicator(column, given === null)];
  },

  /** The trend, and sine and cosine of the cycles: the time of day, the day of the week, the day of the year. */
  date(column, given, location) {
    const parsed = given instanceof Date ? given.getTime() / 1000 : given === null ? NaN : parseDate(column, given);
    if (parsed === null || (given instanceof Date && Number.isNaN(parsed))) {
      throw new RowError(`${location}: expected a date such as 2020-03-31T18:00, found ${shown(given)}`);
    }
    const seconds = Number.isNaN(parsed) ? filled(column, "a date", location) : parsed;
    const waves = column.cycles.flatMap((period) => {
      const angle = (2 * Math.PI * (((seconds % period) + period) % period)) / period;
      return [Math.sin(angle), Math.cos(angle)];
    });
    return [scaled(column, seconds), ...waves, ...indicator(column, Number.isNaN(parsed))];
  },

  /** One feature for each category, 1 for that of the row; or the number of the category. */
  category(column, given, location) {
    const codes = (column.codes = column.codes instanceof Map ? column.codes : new Map(column.codes));
    let text = given;
    if (typeof given === "boolean") text = column.booleans[given ? "true" : "false"] ?? undefined;
    if (typeof given === "number" && Number.isInteger(given)) text = String(given);
    if (text !== null && typeof text !== "string") throw new RowError(`${location}: expected text, found ${shown(given)}`);
    if (text !== null && !codes.has(text)) text = parsedText(text);
    let code = text === null ? column.missing : (codes.get(text) ?? column.unknown);
    if (code === null) throw new RowError(`${location}: expected one of ${column.categories.join(", ")}; found ${shown(given)}`);
    if (column.encoding === "code") return [code];
    const features = new Array(column.width).fill(0);
    features[code] = 1;
    return features;
  },

  /** Hashed words and trigrams: a token with the CRC-32 h adds 1 or -1 to the feature `h mod features`. */
  text(column, given, location) {
    let text = typeof given === "number" && Number.isInteger(given) ? String(given) : given;
    if (text !== null && typeof text !== "string") throw new RowError(`${location}: expected text, found ${shown(given)}`);
    text = text === null ? null : parsedText(text);
    const counts = new Array(column.features).fill(0);
    if (text === null) filled(column, "a text", location);
    for (const token of tokens([...(text ?? "")].slice(0, 4096).join(""))) {
      const hash = crc32(utf8(token));
      counts[hash % column.features] += hash >>> 31 ? -1 : 1;
    }
    const norm = Math.sqrt(counts.reduce((sum, count) => sum + count * count, 0)) || 1;
    return counts.map((count) => count / norm);
  },

  /** `(value - offset) / scale` of each number, such as a pixel. */
  array(column, given, location) {
    const value = ArrayBuffer.isView(given) ? Array.from(given) : given;
    const numbers = Array.isArray(value) ? value.flat(Infinity) : [];
    const nested = numbers.length === value?.length || hasShape(value, column.shape);
    if (!nested || numbers.length !== column.width || !numbers.every(Number.isFinite)) {
      throw new RowError(`${location}: expected ${column.width} finite numbers of shape ${column.shape.join(" x ")}, or flat`);
    }
    const [low, high] = [column.low ?? -Infinity, column.high ?? Infinity];
    const outside = numbers.find((value) => value < low || value > high);
    if (outside !== undefined) throw new RowError(`${location}: expected numbers from ${low} to ${high}, found ${outside}`);
    return numbers.map((value) => scaled(column, value));
  },
};

const scaled = (column, value) => (value - column.offset) / column.scale;

function compressed(column, value) {
  if (column.linear_width === null) return value;
  const quotient = value / column.linear_width;
  return Math.asinh(Math.min(Math.max(quotient, -Number.MAX_VALUE), Number.MAX_VALUE));
}

const indicator = (column, isMissing) => (column.indicator ? [Number(isMissing)] : []);

function filled(column, expected, location) {
  if (column.fill === null) throw new RowError(`${location}: expected ${expected}, found none; the column is required`);
  return column.fill;
}

const hasShape = (value, shape) =>
  shape.length === 0
    ? typeof value === "number"
    : Array.isArray(value) && value.length === shape[0] && value.every((one) => hasShape(one, shape.slice(1)));

function shown(value) {
  const text = typeof value === "string" ? JSON.stringify(value) : String(value);
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}

const MISSING = ["", "na", "n/a", "nan", "null", "?"];
const SPACES = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const OUTER_SPACES = new RegExp(`^[${SPACES}]+|[${SPACES}]+$`, "g");
const strip = (text) => text.replace(OUTER_SPACES, "");

/** Return a text without spaces around it, null if it means a missing value. */
function parsedText(text) {
  const stripped = strip(text);
  return MISSING.includes(stripped.toLowerCase()) ? null : stripped;
}

function* tokens(text) {
  for (const [word] of text.toLowerCase().matchAll(/[\p{L}\p{N}_]+/gu)) {
    yield `w ${word}`;
    const characters = [" ", ...word, " "];
    for (let i = 0; i + 3 <= characters.length; i++) yield characters.slice(i, i + 3).join("");
  }
}

function utf8(text) {
  const bytes = [];
  for (const character of text) {
    const code = character.codePointAt(0);
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
  }
  return bytes;
}

function crc32(bytes) {
  let state = ~0;
  for (const byte of bytes) {
    state ^= byte;
    for (let bit = 0; bit < 8; bit++) state = (state >>> 1) ^ (state & 1 ? 0xedb88320 : 0);
  }
  return ~state >>> 0;
}

// Dates --------------------------------------------------------------------------------------------------------------

const TIME = "(?:[T ] ?(\\d{1,2}):(\\d{2})(?::(\\d{2})(?:[.,](\\d{1,9}))?)? ?([AaPp][Mm])?(?: ?(Z|UTC|[+-]\\d{2}(?::?\\d{2})?))?)?";
const ISO = new RegExp(`^(\\d{4})([-/.])(\\d{1,2})(?:\\2(\\d{1,2}))?${TIME}$`);
const DIGITS = new RegExp(`^(\\d{1,2})([-/.])(\\d{1,2})\\2(\\d{4}|\\d{2})${TIME}$`);
const CLOCK = /^(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?(?: ?([AaPp])\.?[Mm]\.?)?$/;
const NAMED = new RegExp(`^(\\d{1,2})[- ]([A-Za-z]{3,9})\\.?,?[- ](\\d{4}|\\d{2})${TIME}$`);
const NAME_FIRST = new RegExp(`^([A-Za-z]{3,9})\\.? (\\d{1,2}),? (\\d{4})${TIME}$`);
const MONTHS = "january february march april may june july august september october november december".split(" ");
const [MIN_SECONDS, MAX_SECONDS] = [-62135596800, 253402300799]; // the years 1 to 9999

/** Return the seconds since 1970 in UTC, NaN for a word that means a missing value, null for other texts. */
function parseDate(column, given) {
  if (typeof given !== "string") return null;
  const text = strip(given);
  if (["nat", ...column.missing].includes(text.toLowerCase())) return NaN;
  if (text.length > 48) return null;
  let found;
  if (column.order === "time") {
    found = CLOCK.exec(text);
    return found && toSeconds("1970", "1", "1", [...found.slice(1, 5), found[5] && `${found[5]}m`, undefined]);
  }
  if ((found = ISO.exec(text))) {
    if (found[4] === undefined && (found[2] !== "-" || found[5] !== undefined)) return null;
    return toSeconds(found[1], found[3], found[4] ?? "1", found.slice(5));
  }
  if (["mdy", "dmy"].includes(column.order) && (found = DIGITS.exec(text))) {
    const [month, day] = column.order === "mdy" ? [found[1], found[3]] : [found[3], found[1]];
    return toSeconds(found[4], month, day, found.slice(5));
  }
  if (column.order === "named" && (found = NAMED.exec(text))) return toSeconds(found[3], monthOf(found[2]), found[1], found.slice(4));
  if (column.order === "named" && (found = NAME_FIRST.exec(text))) return toSeconds(found[3], monthOf(found[1]), found[2], found.slice(4));
  return null;
}

const monthOf = (name) =>
  1 + MONTHS.findIndex((month) => [month, month.slice(0, 3), month.slice(0, 4)].includes(name.toLowerCase()));

function toSeconds(year, month, day, [hour, minute, second, fraction, half, zone]) {
  let number = Number(year);
  if (year.length === 2) number += number < 70 ? 2000 : 1900;
  let clock = Number(hour ?? 0);
  if (half !== undefined) {
    if (clock < 1 || clock > 12) return null;
    clock = (clock % 12) + (half.toLowerCase() === "pm" ? 12 : 0);
  }
  const parts = [number, Number(month), Number(day), clock, Number(minute ?? 0), Number(second ?? 0)];
  const moment = new Date(0);
  moment.setUTCFullYear(parts[0], parts[1] - 1, parts[2]);
  moment.setUTCHours(parts[3], parts[4], parts[5]);
  const kept = [
    moment.getUTCFullYear(), moment.getUTCMonth() + 1, moment.getUTCDate(),
    moment.getUTCHours(), moment.getUTCMinutes(), moment.getUTCSeconds(),
  ];
  if (number < 1 || parts.some((part, i) => part !== kept[i])) return null; // such as February 30
  let seconds = Math.min(moment.getTime() / 1000 + Number(`0.${fraction ?? 0}`), MAX_SECONDS);
  if (zone !== undefined && "+-".includes(zone[0])) {
    const digits = zone.slice(1).replace(":", "").padEnd(4, "0");
    const offset = 3600 * Number(digits.slice(0, 2)) + 60 * Number(digits.slice(2));
    if (offset >= 86400) return null;
    seconds -= zone[0] === "+" ? offset : -offset;
  }
  return seconds >= MIN_SECONDS && seconds <= MAX_SECONDS ? seconds : null;
}
