// A program on a generated client: it compiles only if the types are those of the service, and prints its answers.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };
type Schemas = components["schemas"];

const client = createClient<paths>({ baseUrl: process.argv[2] });
const row: Schemas["penguins.instance"] = { island: "Biscoe", mass: 4200.5, sex: "MALE" };

const predicted = await client.POST("/models/penguins/predict", { body: { instances: [row] } });
if (predicted.data === undefined) throw new Error(predicted.error.error.message);
const prediction: Schemas["penguins.prediction"] = predicted.data.predictions[0];
const probability: number | undefined = prediction.probabilities.Gentoo; // with top_k it may be left out

const columnar = await client.POST("/v1/models/price:predict", { body: { inputs: { rooms: [3], area: [80] } } });
const tensor: Schemas["V2Tensor"] = { name: "instances", shape: [1, 2], datatype: "FP64", data: [3, 80] };
const inferred = await client.POST("/v2/models/{name}/infer", {
  params: { path: { name: "price" } },
  body: { inputs: [tensor] },
});
const model = await client.GET("/models/{name}", { params: { path: { name: "penguins" } } });
// @ts-expect-error - an island that the model does not know
const wrong: Schemas["penguins.instance"] = { island: "Bisco", mass: 4200.5 };
const refused = await client.POST("/models/penguins/predict", { body: { instances: [wrong] } });

console.log(JSON.stringify({
  label: prediction.label,
  probability,
  columnar: columnar.data?.outputs,
  inferred: (inferred.data as Schemas["V2InferResponse"]).outputs[0].data, // not the form with bytes
  columns: model.data?.inputs.map((column) => column.name),
  fix: refused.error?.error.faults[0].fix,
}));
