/**
 * What the command line shows: tables for people, JSON for programs, and the exit codes.
 */
import Table from 'cli-table3';
import pc from 'picocolors';
import { KvError } from '../errors.js';

/** Exit codes of every command. */
export const ExitCode = { ok: 0, error: 1, usage: 2, unhealthy: 3, unknownOutcome: 4 } as const;

export type OutputForm = 'table' | 'json';

/** A wrong argument: shown without a stack, exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Something is not as it should be, without an error of ours: exit code 3. */
export class Unhealthy extends Error {
  override readonly name = 'Unhealthy';
}

export function printTable(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const table = new Table({
    head: head.map((title) => pc.bold(title)),
    style: { head: [], border: [], compact: true },
    chars: {
      top: '',
      'top-mid': '',
      'top-left': '',
      'top-right': '',
      bottom: '',
      'bottom-mid': '',
      'bottom-left': '',
      'bottom-right': '',
      left: '',
      'left-mid': '',
      mid: '',
      'mid-mid': '',
      right: '',
      'right-mid': '',
      middle: ' ',
    },
  });
  for (const row of rows) table.push([...row]);
  console.log(table.toString());
}

export function printJson(value: unknown): void {
  console.log(JSON.stringify(plain(value)));
}

/** What was not sent of a message stands in its prototype: JSON alone would leave it out. ('$': its type.) */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  const fields: Record<string, unknown> = {};
  for (const name in value) {
    const field: unknown = Reflect.get(value, name);
    if (typeof field !== 'function' && !name.startsWith('$')) fields[name] = plain(field);
  }
  return fields;
}

/** Text if the bytes are UTF-8, base64 otherwise: the form of `load`, `dump` and JSON output. */
export function textOrBase64(name: string, bytes: Uint8Array): Record<string, string> {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
  if (Buffer.from(text, 'utf8').equals(bytes)) return { [name]: text };
  return { [`${name}_base64`]: Buffer.from(bytes).toString('base64') };
}

/** For a terminal: text, or `base64:...` when the bytes are not UTF-8. */
export function showBytes(bytes: Uint8Array): string {
  const shown = textOrBase64('x', bytes);
  return shown['x'] ?? `base64:${shown['x_base64'] ?? ''}`;
}

export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit] ?? ''}`;
}

/** 123456 -> '123,456'. */
export function formatCount(count: number): string {
  return count.toLocaleString('en-US');
}

/** Milliseconds as '45 s', '12 min', '3 h', '5 d'. */
export function formatAge(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800
    ? `${Math.round(seconds / 3600)} h`
    : `${Math.round(seconds / 86_400)} d`;
}

/** Prints an error the way a person can act on, and returns the exit code it stands for. */
export function reportError(error: unknown, form: OutputForm = 'table'): number {
  if (form === 'json') {
    const message = error instanceof Error ? error.message : String(error);
    const { code, outcome } =
      error instanceof KvError ? error : { code: null, outcome: 'notApplied' };
    printJson({ error: { code, outcome, message } });
  } else {
    console.error(`${pc.red('error')}: ${describe(error)}`);
  }
  if (error instanceof KvError)
    return error.outcome === 'unknown' ? ExitCode.unknownOutcome : ExitCode.error;
  if (error instanceof UsageError) return ExitCode.usage;
  return error instanceof Unhealthy ? ExitCode.unhealthy : ExitCode.error;
}

function describe(error: unknown): string {
  if (error instanceof KvError) {
    const outcome =
      error.outcome === 'unknown' ? 'the write may have been applied' : 'nothing was applied';
    return `${error.message} [${error.code}; ${outcome}]`;
  }
  return error instanceof Error ? error.message : String(error);
}
