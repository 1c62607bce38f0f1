// One prompt, a stream, and a batch from Node:
//
//   cd examples/clients/node && npm install && node complete.js [host:port]
//
// ARBITRAGE_TOKEN is sent where it is set; ARBITRAGE_TLS_ROOTS names a PEM file of authorities.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const address = process.argv[2] ?? "127.0.0.1:50051";
const proto = fileURLToPath(new URL("../../../proto/", import.meta.url));
const definition = loader.loadSync("arbitrage/v1/arbitrage.proto", {
  includeDirs: [proto],
  keepCase: true,
  longs: Number,
  enums: String,
  oneofs: true,
});
const { arbitrage } = grpc.loadPackageDefinition(definition);

const roots = process.env.ARBITRAGE_TLS_ROOTS;
const credentials = roots
  ? grpc.credentials.createSsl(readFileSync(roots))
  : grpc.credentials.createInsecure();

// what is UNAVAILABLE is tried again, after as long as the service says
const retryPolicy = {
  maxAttempts: 5,
  initialBackoff: "0.5s",
  maxBackoff: "5s",
  backoffMultiplier: 2,
  retryableStatusCodes: ["UNAVAILABLE"],
};
const name = [{ service: "arbitrage.v1.ArbitrageService" }];
const client = new arbitrage.v1.ArbitrageService(address, credentials, {
  "grpc.service_config": JSON.stringify({ methodConfig: [{ name, retryPolicy }] }),
  "grpc.keepalive_time_ms": 30_000,
  "grpc.enable_http_proxy": 0,
});

function metadata() {
  const sent = new grpc.Metadata();
  if (process.env.ARBITRAGE_TOKEN) sent.set("authorization", `Bearer ${process.env.ARBITRAGE_TOKEN}`);
  return sent;
}

const soon = () => ({ deadline: Date.now() + 120_000 });

function complete(prompt) {
  return new Promise((resolve, reject) => {
    client.Complete({ prompt }, metadata(), soon(), (error, response) =>
      error ? reject(error) : resolve(response.sample),
    );
  });
}

try {
  const sample = await complete({ text: "Wo liegt Lima?", language: "de" });
  console.log(`${sample.winner.teacher}: ${sample.winner.completion}`);

  const steps = client.StreamComplete({ prompt: { text: "Pourquoi ?" } }, metadata(), soon());
  for await (const step of steps) console.log(`step: ${step.event}`);

  const batch = client.Arbitrate(metadata(), soon());
  ["Wo liegt Lima?", "Var ligger Lima?", " "].forEach((text, number) =>
    batch.write({ request_id: String(number), prompt: { text } }),
  );
  batch.end();
  for await (const { request_id, sample, error } of batch) {
    console.log(`${request_id}: ${error ? error.message : sample.winner.teacher}`);
  }
} catch (error) {
  console.error(`${grpc.status[error.code] ?? error.name}: ${error.details ?? error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
