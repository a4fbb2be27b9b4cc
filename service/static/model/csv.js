// CSV text as records (RFC 4180): quoted cells may contain commas, line breaks and doubled quotes.

// Yield the text of each record with its line break: these may be sent in any pieces.
export function* records(text) {
  let [start, isQuoted] = [0, false];
  for (let i = 0; i < text.length; i++) {
    const letter = text[i];
    if (letter === '"') isQuoted = !isQuoted;
    else if (letter === "\n" && !isQuoted) {
      if (text.slice(start, i + 1).trim()) yield text.slice(start, i + 1);
      start = i + 1;
    }
  }
  if (text.slice(start).trim()) yield text.slice(start);
}

export function cells(record, separator) {
  const found = [];
  let cell = "";
  let isQuoted = false;
  const line = record.replace(/\r?\n$/, "");
  for (let i = 0; i < line.length; i++) {
    const letter = line[i];
    if (isQuoted && letter === '"' && line[i + 1] === '"') { cell += letter; i++; }
    else if (letter === '"') isQuoted = !isQuoted;
    else if (letter === separator && !isQuoted) { found.push(cell); cell = ""; }
    else cell += letter;
  }
  return [...found, cell];
}

// The separator of a header: the most frequent of those that the service reads.
export function separatorOf(header) {
  const count = (separator) => cells(header, separator).length;
  return [",", ";", "\t", "|"].reduce((best, one) => (count(one) > count(best) ? one : best));
}

export const quoted = (cell) => (/[",;\t\r\n|]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
