// Verify a receipt without Python: node verify_receipt.mjs ANSWER BODY
//
// ANSWER is a response to POST /predict?receipt=true, BODY the request body, byte for byte. The receipt has the SHA-256 of
// both: of the body's bytes, and of the predictions in the canonical form of RFC 8785. That the model gives these
// predictions is for `models replay` to verify.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

const sha256 = (data) => createHash("sha256").update(data).digest("hex");

// JSON.stringify writes numbers and strings as RFC 8785 asks; only the order of the keys remains.
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(",")}}`;
}

const [answerFile, bodyFile] = process.argv.slice(2);
const { predictions, receipt } = JSON.parse(readFileSync(answerFile, "utf8"));
const found = { input_sha256: sha256(readFileSync(bodyFile)), predictions_sha256: sha256(canonical(predictions)) };
const wrong = Object.keys(found).filter((name) => found[name] !== receipt[name]);
for (const name of wrong) console.error(`${name}: expected ${receipt[name]}, found ${found[name]}`);
if (wrong.length) process.exit(1);
console.log(`Verified: request and predictions are those of the receipt of ${receipt.model}/${receipt.version}.`);
