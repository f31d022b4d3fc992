/**
 * How long the event loop stands still while the state engine writes on it:
 * `npm run measure:engine -- --seconds 45 --puts 30000`.
 *
 * Random 256-byte values under random keys, in unsynced batches of 100, and a small synced batch every
 * 8 MiB (rule D14), as the applier of a busy node does. The other core is kept busy, if asked.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { build } from 'hdr-histogram-js';
import { RocksEngine } from '../storage/index.js';

const batchLength = 100;
const markBytes = 8 << 20;
const memoryBytesMax = 128 << 20;
const valueBytes = 256;

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '45' },
    puts: { type: 'string', default: '30000' },
    directory: { type: 'string', default: tmpdir() },
    busy: { type: 'boolean', default: false },
  },
});
const seconds = Math.min(Number(values.seconds), 600);
const putsPerSecond = Math.min(Number(values.puts), 1_000_000);
if (!(seconds > 0) || !(putsPerSecond > 0)) {
  throw new RangeError('--seconds and --puts must be numbers above 0');
}

const directory = mkdtempSync(join(values.directory, 'quorate-measure-'));
const engine = await RocksEngine.open({ directory, memoryBytesMax });
const busy = values.busy ? new Worker('for (;;) Math.sqrt(2)', { eval: true }) : undefined;
const batches = build({ lowestDiscernibleValue: 1, highestTrackableValue: 10_000_000 });
const marks = build({ lowestDiscernibleValue: 1, highestTrackableValue: 10_000_000 });
const loop = monitorEventLoopDelay({ resolution: 1 });

let unmarked = 0;
let rssMax = 0;

function microseconds(since: number): number {
  return Math.round((performance.now() - since) * 1000);
}

async function writeBatch(): Promise<void> {
  const batch = engine.batch();
  for (let n = 0; n < batchLength; n++) {
    const key = Buffer.from(`key-${Math.floor(Math.random() * 1e9)}`);
    const value = Buffer.allocUnsafe(valueBytes);
    for (let at = 0; at < valueBytes; at += 4) value.writeUInt32LE(Math.random() * 2 ** 32, at);
    batch.put(key, value);
  }
  const began = performance.now();
  await engine.write(batch, { sync: false });
  batches.recordValue(microseconds(began));
  unmarked += batch.bytes;
  if (unmarked < markBytes) return;
  unmarked = 0;
  const mark = engine.batch();
  mark.put(Buffer.from('applied'), Buffer.from(String(began)));
  const markBegan = performance.now();
  await engine.write(mark, { sync: true });
  marks.recordValue(microseconds(markBegan));
}

const began = performance.now();
let written = 0;
loop.enable();
while (performance.now() - began < seconds * 1000) {
  const due = ((performance.now() - began) / 1000) * putsPerSecond;
  if (written < due) {
    await writeBatch();
    written += batchLength;
    rssMax = Math.max(rssMax, process.memoryUsage.rss());
  }
  await new Promise((resolve) => setImmediate(resolve));
}
loop.disable();

const ms = (us: number): string => `${(us / 1000).toFixed(2)} ms`;
const nanoseconds = (quantile: number): string => ms(loop.percentile(quantile) / 1000);
const lines = [
  ['puts a second, asked for', String(putsPerSecond)],
  ['puts a second, done', String(Math.round((written * 1000) / (performance.now() - began)))],
  ['a batch of 100, p50', ms(batches.getValueAtPercentile(50))],
  ['a batch of 100, p99.9', ms(batches.getValueAtPercentile(99.9))],
  ['a batch of 100, max', ms(batches.maxValue)],
  ['a synced mark, p50', ms(marks.getValueAtPercentile(50))],
  ['a synced mark, max', ms(marks.maxValue)],
  ['event-loop delay, p50', nanoseconds(50)],
  ['event-loop delay, p99', nanoseconds(99)],
  ['event-loop delay, p99.9', nanoseconds(99.9)],
  ['event-loop delay, max', ms(loop.max / 1000)],
  ['resident memory, max', `${Math.round(rssMax / 2 ** 20)} MiB`],
];
for (const [name = '', value = ''] of lines) console.log(`${name.padEnd(28)}${value}`);

await engine.close();
await busy?.terminate();
rmSync(directory, { recursive: true, force: true });
