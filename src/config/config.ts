/**
 * The options of a node: flags over environment (QUORATE_*) over a TOML file over defaults, checked
 * as a whole. One frozen object comes out, or all problems at once.
 */
import { readFileSync } from 'node:fs';
import { parse as parseToml } from 'smol-toml';
import { z } from 'zod';
import { parseAddress, type Address } from './address.js';

/** One of the first nodes of the cluster: the same list is given to each of them. */
export interface ClusterMember {
  readonly node: number;
  readonly peer: Address;
  readonly client: Address;
}

const integer = (
  min: number,
  max: number,
): z.ZodPipe<z.ZodUnknown, z.ZodTransform<number, unknown>> =>
  z.unknown().transform((value, context) => {
    const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
    if (
      typeof number === 'number' &&
      Number.isSafeInteger(number) &&
      number >= min &&
      number <= max
    ) {
      return number;
    }
    context.addIssue({
      code: 'custom',
      message: `must be an integer from ${min} to ${max}, got ${show(value)}`,
    });
    return z.NEVER;
  });

const flag = z.unknown().transform((value, context) => {
  if (typeof value === 'boolean') return value;
  if (value === 'true' || value === 'false') return value === 'true';
  context.addIssue({ code: 'custom', message: `must be true or false, got ${show(value)}` });
  return z.NEVER;
});

const address = z.unknown().transform((value, context) => {
  const parsed = typeof value === 'string' ? parseAddress(value) : undefined;
  if (parsed !== undefined) return parsed;
  context.addIssue({
    code: 'custom',
    message: `must be host:port (e.g. 127.0.0.1:7400), got ${show(value)}`,
  });
  return z.NEVER;
});

const choice = <const T extends readonly string[]>(
  names: T,
): z.ZodPipe<z.ZodUnknown, z.ZodTransform<T[number], unknown>> =>
  z.unknown().transform((value, context) => {
    const found: T[number] | undefined = names.find((name) => name === value);
    if (found !== undefined) return found;
    context.addIssue({
      code: 'custom',
      message: `must be one of ${names.join(', ')}, got ${show(value)}`,
    });
    return z.NEVER;
  });

const text = (
  pattern: RegExp,
  rule: string,
): z.ZodPipe<z.ZodUnknown, z.ZodTransform<string, unknown>> =>
  z.unknown().transform((value, context) => {
    if (typeof value === 'string' && pattern.test(value)) return value;
    context.addIssue({ code: 'custom', message: `${rule}, got ${show(value)}` });
    return z.NEVER;
  });

/** "1=127.0.0.1:7401/127.0.0.1:7400,2=...": node id, peer address, client address. */
const members = z.unknown().transform((value, context): readonly ClusterMember[] => {
  const parts = typeof value === 'string' ? value.split(',').map((part) => part.trim()) : [];
  const parsed = parts.map(parseMember);
  const bad = parts.find((_part, at) => parsed[at] === undefined);
  if (parts.length === 0 || bad !== undefined) {
    context.addIssue({
      code: 'custom',
      message: `must list node=peer-address/client-address, separated by commas, got ${show(bad ?? value)}`,
    });
    return z.NEVER;
  }
  return parsed.filter((member) => member !== undefined);
});

/** "10.0.0.1:7400,10.0.0.2:7400". */
const addresses = z.unknown().transform((value, context): readonly string[] => {
  const parts = typeof value === 'string' ? value.split(',').map((part) => part.trim()) : [''];
  const bad = parts.find((part) => parseAddress(part) === undefined);
  if (bad === undefined) return parts;
  context.addIssue({
    code: 'custom',
    message: `must list host:port, separated by commas, got ${show(bad)}`,
  });
  return z.NEVER;
});

/** "host=a,zone=b". */
const labels = z.unknown().transform((value, context): readonly string[] => {
  const parts = typeof value === 'string' ? value.split(',').map((part) => part.trim()) : [''];
  const bad = parts.find((part) => !/^[a-z][a-z0-9-]{0,31}=[^=,]{1,64}$/.test(part));
  if (bad === undefined) return parts;
  context.addIssue({
    code: 'custom',
    message: `must list name=value, separated by commas, got ${show(bad)}`,
  });
  return z.NEVER;
});

function parseMember(part: string): ClusterMember | undefined {
  const match = /^(\d+)=([^/]+)\/([^/]+)$/.exec(part);
  const peer = parseAddress(match?.[2] ?? '');
  const client = parseAddress(match?.[3] ?? '');
  const node = Number(match?.[1]);
  if (peer === undefined || client === undefined || !(node >= 1)) return undefined;
  return { node, peer, client };
}

function show(value: unknown): string {
  return value === undefined ? 'nothing' : JSON.stringify(value);
}

const MiB = 1024 * 1024;

const schema = z
  .strictObject({
    clusterId: text(/^[A-Za-z0-9._-]{1,64}$/, 'must be 1 to 64 letters, digits, dots, dashes'),
    /** 0: the cluster gives it one (`join`). */
    nodeId: integer(0, 0xffff_ffff).default(0),
    dataDirectory: text(/./, 'must name a directory'),
    clientAddress: address.default({ host: '127.0.0.1', port: 7400 }),
    peerAddress: address.default({ host: '127.0.0.1', port: 7401 }),
    httpAddress: address.default({ host: '127.0.0.1', port: 7402 }),
    /** The first nodes, the same list on each of them; none for a node that joins. */
    initialCluster: members.default([]),
    /** Client addresses of nodes of a running cluster, to be joined. */
    join: addresses.default([]),
    /** What the operator wants known of this node: `host` tells failure domains apart. */
    labels: labels.default([]),
    weight: integer(1, 1000).default(100),
    /** `memory` keeps state in memory only: it comes back from the Raft log after a restart. */
    engine: choice(['rocksdb', 'memory']).default('rocksdb'),
    tickMs: integer(5, 1000).default(25),
    electionTicks: integer(4, 1000).default(16),
    heartbeatTicks: integer(1, 500).default(4),
    /** A group that nobody asks anything for so long stops its heartbeats; 0: never. */
    quietAfterMs: integer(0, 3_600_000).default(5000),
    leases: flag.default(false),
    /** Share of an election timeout that a lease lasts, percent; the rest covers clock drift. */
    leasePercent: integer(10, 80).default(60),
    segmentMib: integer(1, 4096).default(64),
    engineMemoryMib: integer(8, 1024 * 1024).default(128),
    /** Writes are refused when the data directory's file system has less than this free. */
    diskReserveMib: integer(0, 1024 * 1024).default(256),
    /** Entries of a group are kept in the log up to this for slow followers. */
    logKeptMib: integer(1, 1024 * 1024).default(32),
    keyBytesMax: integer(1, 64 * 1024).default(4 * 1024),
    valueBytesMax: integer(1, 64 * MiB).default(MiB),
    requestBytesMax: integer(1024, 256 * MiB).default(4 * MiB),
    batchLengthMax: integer(1, 1_000_000).default(10_000),
    uncommittedMib: integer(1, 4096).default(64),
    /** What speaks HTTP/2 at the client port: Node's own, or the frames of src/api/http2. */
    http2: choice(['node', 'lean']).default('node'),
    unaryDoor: choice(['http2', 'grpc']).default('http2'),
    logLevel: choice(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
  })
  .superRefine((config, context) => {
    const problem = (path: string, message: string): void => {
      context.addIssue({ code: 'custom', path: [path], message });
    };
    if (config.heartbeatTicks * 2 > config.electionTicks) {
      problem(
        'heartbeatTicks',
        `must be at most half of electionTicks (${config.electionTicks}), got ${config.heartbeatTicks}`,
      );
    }
    if (config.requestBytesMax < config.keyBytesMax + config.valueBytesMax + 1024) {
      problem(
        'requestBytesMax',
        `must hold a largest key and value (${config.keyBytesMax + config.valueBytesMax + 1024}), got ${config.requestBytesMax}`,
      );
    }
    const ids = config.initialCluster.map((member) => member.node);
    if (new Set(ids).size !== ids.length) problem('initialCluster', 'names a node id twice');
    if (config.join.length > 0) {
      if (ids.length > 0)
        problem('join', 'a node that joins has no initialCluster: give one of them');
      if (config.nodeId !== 0)
        problem('join', 'a node that joins is given its nodeId: leave it out');
    } else if (ids.length === 0) {
      problem('initialCluster', 'is missing: list the first nodes, or name running ones with join');
    } else if (!ids.includes(config.nodeId)) {
      problem('initialCluster', `does not name this node (nodeId ${config.nodeId})`);
    }
  });

/** Everything a node can be told, checked. */
export type Config = Readonly<z.output<typeof schema>>;

/** Names of all options, in the order of the documentation. */
export const optionNames: readonly (keyof Config)[] = Object.freeze(
  Object.keys(schema.shape),
) as readonly (keyof Config)[];

/** `problems` has one line for each mistake, all of them: what, the rule, what was given. */
export class ConfigInvalid extends Error {
  override readonly name = 'ConfigInvalid';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(
      `configuration has ${problems.length} problem(s):\n${problems.map((p) => `  - ${p}`).join('\n')}`,
    );
    this.problems = problems;
  }
}

export interface ConfigSources {
  /** By option name; undefined values do not count. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Path of a TOML file, if any. */
  readonly file: string | undefined;
}

/** "dataDirectory" -> "QUORATE_DATA_DIRECTORY". */
export function environmentName(option: string): string {
  return `QUORATE_${option.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

/** Reads, merges and checks all sources. Throws ConfigInvalid with every problem. */
export function loadConfig(sources: ConfigSources): Config {
  const problems: string[] = [];
  const origins = new Map<string, string>();
  const merged: Record<string, unknown> = {};
  const take = (name: string, value: unknown, origin: string): void => {
    if (value === undefined) return;
    merged[name] = value;
    origins.set(name, origin);
  };
  for (const [name, value] of Object.entries(readFile(sources.file, problems))) {
    take(name, value, sources.file ?? '');
  }
  for (const name of optionNames) {
    const variable = environmentName(name);
    take(name, sources.environment[variable], variable);
  }
  for (const [name, value] of Object.entries(sources.flags)) take(name, value, `flag ${name}`);
  const checked = schema.safeParse(merged);
  if (checked.success && problems.length === 0) return Object.freeze(checked.data);
  for (const issue of checked.error?.issues ?? []) problems.push(...describe(issue, origins));
  throw new ConfigInvalid(problems);
}

function readFile(path: string | undefined, problems: string[]): Record<string, unknown> {
  if (path === undefined) return {};
  try {
    return parseToml(readFileSync(path, 'utf8'));
  } catch (error) {
    problems.push(
      `${path}: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`,
    );
    return {};
  }
}

function describe(issue: z.core.$ZodIssue, origins: ReadonlyMap<string, string>): string[] {
  const from = (name: string): string => {
    const origin = origins.get(name);
    return origin === undefined ? '' : ` (from ${origin})`;
  };
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => `${key}${from(key)}: no such option`);
  }
  const name = String(issue.path[0] ?? 'configuration');
  return [`${name}${from(name)}: ${issue.message}`];
}
