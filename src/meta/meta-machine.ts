/**
 * The metadata group's state machine: the topology, in memory as one value and in the engine in
 * pieces. What commands do is in apply-command.ts; here is when it becomes visible.
 */
import type { Entry } from '../../raft/index.js';
import {
  machineKey,
  machineRange,
  type Engine,
  type EngineBatch,
  type KeyRange,
} from '../../storage/index.js';
import type { Applied, Leadership, StateMachine } from '../group/state-machine.js';
import { applyCommand } from './apply-command.js';
import { decodeMetaCommand, type MetaResult } from './commands.js';
import { behindPieces, changedPieces, joinPieces, pieceStart } from './topology-pieces.js';
import { noCluster, type Topology } from './topology.js';

export {
  encodeMetaCommand,
  parseMetaCommand,
  type MetaCommand,
  type MetaResult,
} from './commands.js';

export class MetaMachine implements StateMachine<MetaResult> {
  readonly range: KeyRange;
  /** As of the last batch that is in the engine. Version 0: there is no cluster yet. */
  topology: Topology = noCluster;
  onLeading: (leadership: Leadership) => void = () => undefined;
  /** Told of each new topology that readers may see: after a batch, a start or a snapshot. */
  onTopology: (topology: Topology) => void = () => undefined;
  readonly keys = 0;
  private readonly engine: Engine;
  private readonly prefix: Uint8Array;
  /** With the batch that is being written. */
  private next: Topology = noCluster;

  constructor(engine: Engine, prefix: Uint8Array) {
    this.engine = engine;
    this.prefix = prefix;
    this.range = machineRange(prefix);
  }

  async load(): Promise<void> {
    const start = this.key(pieceStart);
    const nameStart = start.byteLength - pieceStart.length;
    const view = this.engine.iterate({
      start,
      end: this.key(behindPieces),
      pageBytesMax: 256 * 1024,
    });
    const pieces: (readonly [string, string])[] = [];
    try {
      for (let page = await view.next(); page.length > 0; page = await view.next()) {
        for (const { key, value } of page)
          pieces.push([
            Buffer.from(key.subarray(nameStart)).toString('latin1'),
            Buffer.from(value).toString('utf8'),
          ]);
      }
    } finally {
      await view.close();
    }
    this.next = joinPieces(pieces);
    this.publish();
  }

  apply(entries: readonly Entry[], batch: EngineBatch): Promise<Applied<MetaResult>> {
    let topology = this.topology;
    const results = entries.map(({ data }): MetaResult => {
      const application = applyCommand(topology, decodeMetaCommand(data));
      topology = application.topology;
      return application.result;
    });
    for (const [name, text] of changedPieces(this.topology, topology)) {
      if (text === undefined) batch.delete(this.key(name));
      else batch.put(this.key(name), Buffer.from(text, 'utf8'));
    }
    this.next = topology;
    return Promise.resolve({ results, clears: [] });
  }

  written(): void {
    this.publish();
  }

  asksForHash(command: Uint8Array): boolean {
    return decodeMetaCommand(command).command.kind === 'hash';
  }

  onLeadership(leadership: Leadership): void {
    this.onLeading(leadership);
  }

  private publish(): void {
    if (this.topology === this.next) return;
    this.topology = this.next;
    this.onTopology(this.topology);
  }

  private key(name: string): Uint8Array {
    return machineKey(this.prefix, name);
  }
}
