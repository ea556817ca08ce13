// gunzip.mjs LAYER...: prints the SHA-256 of what each decodes to, at once and as a stream.
import { createHash } from "node:crypto";
import { createReadStream, readFileSync } from "node:fs";
import { createGunzip, gunzipSync } from "node:zlib";

for (const layer of process.argv.slice(2)) {
  const whole = createHash("sha256").update(gunzipSync(readFileSync(layer))).digest("hex");
  const stream = createHash("sha256");
  for await (const piece of createReadStream(layer).pipe(createGunzip())) stream.update(piece);
  if (stream.digest("hex") !== whole) throw new Error(`${layer}: the stream differs`);
  console.log(whole);
}
