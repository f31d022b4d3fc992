/** Options that many commands share, and how their text is read. */
import type { Command } from 'commander';
import { QuorateClient, SessionToken, type ClientOptions } from '../client/index.js';
import { ReadLevel } from '../../proto/messages.js';
import { parseAddress } from '../config/address.js';
import { UsageError, type OutputForm } from './output.js';

export const defaultEndpoint = '127.0.0.1:7400';

export interface ClientFlags {
  readonly endpoints: string;
  readonly timeout: string;
  readonly output: OutputForm;
}

/** Adds --endpoints, --timeout and -o to a command. */
export function withClientFlags(command: Command): Command {
  return command
    .option(
      '-e, --endpoints <list>',
      'client addresses, separated by commas (or QUORATE_ENDPOINTS)',
      process.env['QUORATE_ENDPOINTS'] ?? defaultEndpoint,
    )
    .option(
      '--timeout <ms>',
      'milliseconds for one operation with its retries, up to 45000',
      '10000',
    )
    .option('-o, --output <form>', 'table or json', parseForm, 'table');
}

export function parseForm(text: string): OutputForm {
  if (text === 'table' || text === 'json') return text;
  throw new UsageError(`-o must be table or json, got '${text}'`);
}

export function endpointsOf(text: string): readonly string[] {
  const endpoints = text.split(',').map((part) => part.trim());
  for (const endpoint of endpoints) {
    if (parseAddress(endpoint) === undefined) {
      throw new UsageError(`--endpoints: '${endpoint}' is not host:port (e.g. ${defaultEndpoint})`);
    }
  }
  return endpoints;
}

/** Runs with a client and closes it afterwards, whatever happens. */
export async function withClient<T>(
  flags: ClientFlags,
  run: (client: QuorateClient) => Promise<T>,
  { batching = true }: Pick<ClientOptions, 'batching'> = {},
): Promise<T> {
  const client = new QuorateClient({
    batching,
    endpoints: endpointsOf(flags.endpoints),
    timeoutMs: parseInteger('--timeout', flags.timeout, 1, 45_000),
  });
  try {
    return await run(client);
  } finally {
    client.close();
  }
}

export function parseInteger(name: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isSafeInteger(value) || value < min || value > max) {
    throw new UsageError(`${name} must be an integer from ${min} to ${max}, got '${text}'`);
  }
  return value;
}

const byteUnits: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
};

/** Bytes as '500000', '10MiB', '1.5 GB'. Whose bounds they are says them. */
export function parseBytes(name: string, text: string): number {
  const [, digits = '', unit = ''] = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/.exec(text.trim()) ?? [];
  const size = byteUnits[unit];
  if (digits === '' || size === undefined)
    throw new UsageError(
      `${name} must be bytes, e.g. 500000, 10MiB or 1.5GB (units: ` +
        `${Object.keys(byteUnits).slice(1).join(', ')}), got '${text}'`,
    );
  return Math.round(Number(digits) * size);
}

/** `new` begins one; undefined: without a session. */
export function parseToken(text: string | undefined): SessionToken | undefined {
  if (text === undefined) return undefined;
  return text === 'new' ? new SessionToken() : SessionToken.parse(text);
}

/** A number whose bounds the cluster knows and says. */
export function parseNumber(name: string, text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isFinite(value)) return value;
  throw new UsageError(`${name} must be a number, got '${text}'`);
}

const levels: Readonly<Record<string, number>> = {
  linearizable: ReadLevel.LINEARIZABLE,
  lease: ReadLevel.LEASE,
  'at-least': ReadLevel.AT_LEAST,
  stale: ReadLevel.STALE,
};

export function parseLevel(text: string): number {
  const level = levels[text];
  if (level === undefined) {
    throw new UsageError(`--level must be one of ${Object.keys(levels).join(', ')}, got '${text}'`);
  }
  return level;
}
