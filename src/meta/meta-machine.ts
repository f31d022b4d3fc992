/**
 * The metadata group's state machine, as far as the ground floor needs it: who the cluster is, which
 * nodes it began with, and the first slot map. Written once, by the first leader.
 */
import { z } from 'zod';
import type { Entry } from '../../raft/index.js';
import {
  machineKey,
  machineRange,
  type Engine,
  type EngineBatch,
  type KeyRange,
} from '../../storage/index.js';
import type { Applied, Leadership, StateMachine } from '../group/state-machine.js';

const commandVersion = 1;

const recordSchema = z.strictObject({
  version: z.literal(commandVersion),
  clusterId: z.string(),
  nodes: z.array(
    z.strictObject({ node: z.number(), peerAddress: z.string(), clientAddress: z.string() }),
  ),
  map: z.strictObject({
    version: z.number(),
    ranges: z.array(
      z.strictObject({ first: z.number(), last: z.number(), shard: z.number(), epoch: z.number() }),
    ),
  }),
});

/** What the metadata group knows of the cluster. JSON, with a version, in the log and the engine. */
export type ClusterRecord = Readonly<z.output<typeof recordSchema>>;

/** The first record of a cluster stays; a later one is refused. */
export type MetaResult = { readonly kind: 'written' } | { readonly kind: 'exists' };

export function encodeBootstrap(record: Omit<ClusterRecord, 'version'>): Uint8Array {
  return Buffer.from(JSON.stringify({ version: commandVersion, ...record }), 'utf8');
}

function decodeRecord(bytes: Uint8Array): ClusterRecord {
  return recordSchema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
}

export class MetaMachine implements StateMachine<MetaResult> {
  readonly range: KeyRange;
  /** As of the last batch that is in the engine. */
  record: ClusterRecord | undefined;
  onLeading: (leadership: Leadership) => void = () => undefined;
  private readonly engine: Engine;
  private readonly prefix: Uint8Array;
  private next: ClusterRecord | undefined;

  constructor(engine: Engine, prefix: Uint8Array) {
    this.engine = engine;
    this.prefix = prefix;
    this.range = machineRange(prefix);
  }

  async load(): Promise<void> {
    const [stored] = await this.engine.getMany([this.key()]);
    this.record = stored === undefined ? undefined : decodeRecord(stored);
    this.next = this.record;
  }

  apply(entries: readonly Entry[], batch: EngineBatch): Promise<Applied<MetaResult>> {
    const results = entries.map((entry): MetaResult => {
      const record = decodeRecord(entry.data);
      if (this.next !== undefined) return { kind: 'exists' };
      this.next = record;
      batch.put(this.key(), entry.data);
      return { kind: 'written' };
    });
    return Promise.resolve({ results, clears: [] });
  }

  written(): void {
    this.record = this.next;
  }

  onLeadership(leadership: Leadership): void {
    this.onLeading(leadership);
  }

  private key(): Uint8Array {
    return machineKey(this.prefix, 'cluster');
  }
}
