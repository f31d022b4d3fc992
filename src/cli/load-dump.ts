/**
 * `quorate kv load` and `dump`: JSON lines in and out, with progress, to be gone on with by key.
 *
 * A line is {"key": ..., "value": ...} with text, or {"key_base64": ..., "value_base64": ...}.
 */
import {
  closeSync,
  createReadStream,
  createWriteStream,
  existsSync,
  ftruncateSync,
  openSync,
  readSync,
  statSync,
  type WriteStream,
} from 'node:fs';
import { createInterface } from 'node:readline';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import cliProgress from 'cli-progress';
import type { Command } from 'commander';
import type { OperationMessage } from '../../proto/messages.js';
import type { QuorateClient } from '../client/index.js';
import { errorOfDetail } from '../client/wire.js';
import { textOrBase64, UsageError } from './output.js';
import { withClient, withClientFlags, type ClientFlags } from './options.js';

const batchLength = 100;
const batchBytes = 512 * 1024;
const batchesInFlight = 4;
const newline = 0x0a;
const tailBytes = 64 * 1024;

export interface Item {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

/** One line of a dump. Throws UsageError that names the line. */
export function parseLine(line: string, number: number): Item {
  let fields: unknown;
  try {
    fields = JSON.parse(line);
  } catch {
    throw new UsageError(`line ${number} is not JSON: ${line.slice(0, 80)}`);
  }
  const record: Record<string, unknown> =
    typeof fields === 'object' && fields !== null ? { ...fields } : {};
  const take = (name: string): Uint8Array => {
    const text = record[name];
    const coded = record[`${name}_base64`];
    if (typeof text === 'string') return Buffer.from(text, 'utf8');
    if (typeof coded === 'string') return Buffer.from(coded, 'base64');
    throw new UsageError(`line ${number} has no "${name}" (text) nor "${name}_base64"`);
  };
  return { key: take('key'), value: take('value') };
}

/** One line for an item, without the newline. */
export function formatLine({ key, value }: Item): string {
  return JSON.stringify({ ...textOrBase64('key', key), ...textOrBase64('value', value) });
}

export interface LoadProgress {
  /** Records written so far, all of them acknowledged. */
  readonly records: number;
  readonly bytesRead: number;
  /** Everything up to and including this key's line is written. */
  readonly lastKey: Uint8Array | undefined;
}

export interface LoadOptions {
  /** Skip lines up to and including the one with this key. */
  readonly after?: Uint8Array | undefined;
  readonly onProgress?: (progress: LoadProgress) => void;
}

/** Writes every line; several batches in flight, acknowledged in order. Rejects at the first failure. */
export async function load(
  client: QuorateClient,
  input: Readable,
  options: LoadOptions = {},
): Promise<LoadProgress> {
  let progress: LoadProgress = { records: 0, bytesRead: 0, lastKey: undefined };
  const flying: Promise<void>[] = [];
  const fly = (items: readonly Item[], bytesRead: number): void => {
    const before = flying.at(-1) ?? Promise.resolve();
    const written = writeAll(client, items);
    flying.push(
      Promise.all([before, written]).then(() => {
        progress = {
          records: progress.records + items.length,
          bytesRead,
          lastKey: items.at(-1)?.key,
        };
        options.onProgress?.(progress);
      }),
    );
  };
  try {
    for await (const { items, bytesRead } of batches(input, options.after)) {
      fly(items, bytesRead);
      if (flying.length >= batchesInFlight) await flying.shift();
    }
    await Promise.all(flying);
  } finally {
    // A line that is wrong loses nothing of those before it, and what is told of them is true.
    await Promise.allSettled(flying);
  }
  return progress;
}

async function* batches(
  input: Readable,
  after: Uint8Array | undefined,
): AsyncGenerator<{ items: readonly Item[]; bytesRead: number }> {
  let items: Item[] = [];
  let bytes = 0;
  let bytesRead = 0;
  let number = 0;
  let skipping = after !== undefined;
  for await (const line of createInterface({ input, crlfDelay: Infinity })) {
    number += 1;
    bytesRead += Buffer.byteLength(line) + 1;
    if (line.trim() === '') continue;
    const item = parseLine(line, number);
    if (skipping) {
      skipping = Buffer.compare(item.key, after ?? item.key) !== 0;
      continue;
    }
    const size = item.key.byteLength + item.value.byteLength;
    if (items.length >= batchLength || (items.length > 0 && bytes + size > batchBytes)) {
      yield { items, bytesRead };
      items = [];
      bytes = 0;
    }
    items.push(item);
    bytes += size;
  }
  if (skipping) throw new UsageError('--after: no line has this key, nothing was loaded');
  if (items.length > 0) yield { items, bytesRead };
}

/** One batch; operations that failed for a passing reason are sent once more each, then it fails. */
async function writeAll(client: QuorateClient, items: readonly Item[]): Promise<void> {
  const operations = items.map((item): OperationMessage => ({
    put: { key: item.key, value: item.value },
  }));
  const results = await client.batch(operations);
  for (const [at, result] of results.entries()) {
    if (!result.error) continue;
    const item = items[at];
    const error = errorOfDetail(result.error);
    if (item === undefined || error.code === 'KV_TOO_LARGE' || error.code === 'KV_INVALID')
      throw error;
    // A put of the same value may be repeated whatever became of the first one.
    await client.put({ key: item.key, value: item.value });
  }
}

export interface DumpOptions {
  readonly prefix: Uint8Array;
  readonly afterKey?: Uint8Array | undefined;
  readonly onProgress?: (records: number) => void;
}

/** Writes every key and value as a line. Each page is one consistent view; pages are not one view. */
export async function dump(
  client: QuorateClient,
  output: WriteStream | NodeJS.WriteStream,
  options: DumpOptions,
): Promise<number> {
  let records = 0;
  const afterKey = options.afterKey === undefined ? {} : { afterKey: options.afterKey };
  for await (const page of client.scan({ prefix: options.prefix, ...afterKey })) {
    const lines = (page.kvs ?? []).map((kv) => `${formatLine(kv)}\n`).join('');
    if (lines !== '' && !output.write(lines)) await once(output, 'drain');
    records += page.kvs?.length ?? 0;
    options.onProgress?.(records);
  }
  return records;
}

interface LoadFlags extends ClientFlags {
  readonly after?: string;
}

interface DumpFlags extends ClientFlags {
  readonly prefix: string;
  readonly after?: string;
  readonly resume?: boolean;
}

export function addLoadAndDump(kv: Command): void {
  withClientFlags(
    kv.command('load [file]').description('write JSON lines from a file or standard input'),
  )
    .option('--after <key>', 'go on after the line with this key')
    .action((file: string | undefined, flags: LoadFlags) =>
      withClient(flags, (client) => runLoad(client, file, flags)),
    );
  withClientFlags(kv.command('dump [file]').description('print all keys and values as JSON lines'))
    .option('--prefix <text>', 'only keys that begin with this', '')
    .option('--after <key>', 'go on after this key')
    .option('--resume', 'append to the file, going on after its last line')
    .action((file: string | undefined, flags: DumpFlags) =>
      withClient(flags, (client) => runDump(client, file, flags)),
    );
}

function startBar(total: number, unit: string): cliProgress.SingleBar {
  const bar = new cliProgress.SingleBar(
    {
      format: `{bar} {percentage}% | {records} records | {value}/{total} ${unit} | {duration_formatted}`,
      // On a terminal only: in a pipe or a log it would be noise.
      noTTYOutput: false,
      hideCursor: true,
      stream: process.stderr,
    },
    cliProgress.Presets.shades_classic,
  );
  bar.start(total, 0, { records: 0 });
  return bar;
}

async function runLoad(
  client: QuorateClient,
  file: string | undefined,
  flags: LoadFlags,
): Promise<void> {
  if (file !== undefined && !existsSync(file)) throw new UsageError(`no such file: ${file}`);
  const input = file === undefined ? process.stdin : createReadStream(file);
  const bar =
    file === undefined || !process.stderr.isTTY
      ? undefined
      : startBar(statSync(file).size, 'bytes');
  let last: LoadProgress | undefined;
  try {
    const after = flags.after === undefined ? undefined : Buffer.from(flags.after, 'utf8');
    const { records } = await load(client, input, {
      after,
      onProgress: (progress) => {
        last = progress;
        bar?.update(progress.bytesRead, { records: progress.records });
      },
    });
    bar?.update(bar.getTotal(), { records });
    bar?.stop();
    console.log(`${records} records loaded`);
  } catch (error) {
    bar?.stop();
    if (last?.lastKey !== undefined) {
      const key = Buffer.from(last.lastKey).toString('utf8');
      console.error(`${last.records} records were loaded; go on with: --after '${key}'`);
    }
    throw error;
  }
}

/**
 * Where an interrupted dump ended: the key of its last whole line, undefined without one. A line
 * that was being written when it ended is cut off.
 */
export function cutToWholeLines(file: string): Uint8Array | undefined {
  const { size } = statSync(file);
  const descriptor = openSync(file, 'r+');
  try {
    // From the end backwards until a whole line is in sight; a line is at most a few MiB.
    for (let length = Math.min(size, tailBytes); ; length = Math.min(size, length * 2)) {
      const tail = Buffer.alloc(length);
      readSync(descriptor, tail, 0, length, size - length);
      const end = tail.lastIndexOf(newline);
      const begin = end < 1 ? -1 : tail.lastIndexOf(newline, end - 1);
      if (length < size && begin < 0) continue;
      ftruncateSync(descriptor, size - length + end + 1);
      return end < 0 ? undefined : parseLine(tail.toString('utf8', begin + 1, end), 0).key;
    }
  } finally {
    closeSync(descriptor);
  }
}

async function runDump(
  client: QuorateClient,
  file: string | undefined,
  flags: DumpFlags,
): Promise<void> {
  const resume = flags.resume === true && file !== undefined && existsSync(file);
  const after = flags.after === undefined ? undefined : Buffer.from(flags.after, 'utf8');
  const afterKey = (resume ? cutToWholeLines(file) : undefined) ?? after;
  const output =
    file === undefined ? process.stdout : createWriteStream(file, { flags: resume ? 'a' : 'w' });
  const shown = file !== undefined && process.stderr.isTTY;
  const records = await dump(client, output, {
    prefix: Buffer.from(flags.prefix, 'utf8'),
    afterKey,
    onProgress: (count) => {
      if (shown) process.stderr.write(`\r${count} records`);
    },
  });
  if (shown) process.stderr.write('\r');
  if (output !== process.stdout) {
    output.end();
    await once(output, 'close');
  }
  if (file !== undefined) console.error(`${records} records dumped to ${file}`);
}
