/**
 * Unary gRPC calls made by h2load (Debian: nghttp2-client), the same program against every store that is
 * raced: it is written in C and costs little. It repeats one body and sees only HTTP, so whoever calls
 * this checks what the calls did.
 */
import { execFile } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const runMsMax = 300_000;

export interface CallLoad {
  /** host:port; several: one process for each body goes to the next of them. */
  readonly addresses: readonly string[];
  /** /package.Service/Method */
  readonly path: string;
  /** Protobuf messages; a process of h2load for each, which repeats it. */
  readonly bodies: readonly Uint8Array[];
  /** Over all bodies; a multiple of their number. */
  readonly calls: number;
  readonly connections: number;
  readonly streams: number;
  /** For files that live as long as the run. */
  readonly directory: string;
}

export interface CallFigures {
  /** By h2load's own watch, from the first connection on; of the slowest process. */
  readonly seconds: number;
  readonly p50Us: number;
  readonly p99Us: number;
  /** Of the bodies of replies, gRPC's framing included. */
  readonly replyBytes: number;
}

/** gRPC's framing: not compressed, length, message. */
function framed(message: Uint8Array): Buffer {
  const frame = Buffer.alloc(5 + message.byteLength);
  frame.writeUInt32BE(message.byteLength, 1);
  frame.set(message, 5);
  return frame;
}

interface Part {
  readonly seconds: number;
  readonly replyBytes: number;
  readonly latenciesUs: readonly number[];
}

async function runOne(load: CallLoad, at: number): Promise<Part> {
  const { addresses, path, bodies, directory, streams } = load;
  const calls = load.calls / bodies.length;
  const connections = Math.max(1, Math.round(load.connections / bodies.length));
  const body = join(directory, `body-${at}`);
  const log = join(directory, `calls-${at}`);
  writeFileSync(body, framed(bodies[at] ?? new Uint8Array()));
  const { stdout } = await run(
    'h2load',
    [
      ...['-n', String(calls), '-c', String(connections), '-m', String(streams)],
      ...['-H', 'content-type: application/grpc', '-H', 'te: trailers'],
      ...['-d', body, `--log-file=${log}`, `http://${addresses[at % addresses.length]}${path}`],
    ],
    { timeout: runMsMax, maxBuffer: 1 << 24 },
  );
  const succeeded = Number(/(\d+) succeeded/.exec(stdout)?.[1]);
  if (succeeded !== calls)
    throw new Error(`${calls - succeeded} of ${calls} calls failed:\n${stdout}`);
  const [, count, unit] = /finished in ([\d.]+)(us|ms|s)/.exec(stdout) ?? [];
  const seconds = Number(count) / ({ us: 1e6, ms: 1e3, s: 1 }[unit ?? ''] ?? Number.NaN);
  const replyBytes = Number(/\((\d+)\) data/.exec(stdout)?.[1]);
  const latenciesUs = readFileSync(log, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => Number(line.split('\t')[2]));
  rmSync(log);
  return { seconds, replyBytes, latenciesUs };
}

/** Rejects when a call was not answered with HTTP 200. */
export async function makeCalls(load: CallLoad): Promise<CallFigures> {
  const parts = await Promise.all(load.bodies.map((_, at) => runOne(load, at)));
  const sorted = parts.flatMap(({ latenciesUs }) => latenciesUs).sort((a, b) => a - b);
  const percentile = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  return {
    seconds: Math.max(...parts.map(({ seconds }) => seconds)),
    p50Us: percentile(0.5),
    p99Us: percentile(0.99),
    replyBytes: parts.reduce((sum, part) => sum + part.replyBytes, 0),
  };
}
