/**
 * A session over a cluster in one process whose followers lag, are cut off and start anew: what it
 * writes and reads at any replica, and everything it saw that it should not have.
 */
import { nodeId } from '../../raft/index.js';
import { slotOf, type Slot } from '../../src/router/slot.js';
import type { ReadLevel, ReadResult, Written } from '../../src/shard/shard.js';
import { mergePosition, type SlotPosition } from '../../src/shard/slot-position.js';
import { bytes, put, remove, write } from '../shard/command-texts.js';
import type { ShardCluster, ShardNode } from './shard-cluster.js';

export type Step =
  /** `own`: by the session; otherwise by somebody whose replies it does not see. */
  | {
      readonly kind: 'put' | 'brief' | 'delete';
      readonly key: string;
      readonly own: boolean;
    }
  | { readonly kind: 'read'; readonly key: string; readonly at: number }
  /** `lag`: its appends are lost, everything else comes through. */
  | { readonly kind: 'cut' | 'lag' | 'heal' | 'restart'; readonly at: number }
  | { readonly kind: 'tick'; readonly ticks: number };

/** What the session knows of a key: no state of before may be shown to it. */
interface Floor {
  readonly revision: number;
  /** That revision is gone: deleted or expired. */
  readonly isGone: boolean;
}

/** What is true of a key beside what the session saw. */
interface Truth {
  readonly deletes: number[];
  readonly brief: Set<number>;
  /** A write of unknown outcome may have done anything, at any time. */
  unknown: boolean;
}

interface Answer<T> {
  readonly error: Error | undefined;
  readonly result: T | undefined;
}

const ttlMs = 60;
/** How long an operation is waited for; what comes later is not looked at. */
const ticksMax = 12;
const nothing: Floor = { revision: 0, isGone: false };

export class SessionPlay {
  readonly violations: string[] = [];
  /** Reads that were answered, by node. */
  readonly answered = new Map<number, number>();
  private readonly token = new Map<Slot, SlotPosition>();
  private readonly floors = new Map<string, Floor>();
  private readonly truths = new Map<string, Truth>();
  private readonly lagging = new Set<number>();
  private readonly cluster: ShardCluster;
  private readonly level: 'atLeast' | 'stale';

  constructor(cluster: ShardCluster, level: 'atLeast' | 'stale') {
    this.cluster = cluster;
    this.level = level;
    cluster.network.filter = (_from, to, { message }) =>
      this.lagging.has(to) && message.type === 'append' && message.entries.length > 0
        ? 'lose'
        : 'pass';
  }

  async run(steps: readonly Step[]): Promise<void> {
    for (const step of steps) await this.take(step);
  }

  private async take(step: Step): Promise<void> {
    const { cluster } = this;
    switch (step.kind) {
      case 'put':
      case 'brief':
      case 'delete':
        await this.write(step);
        break;
      case 'read':
        await this.read(step.key, cluster.node(step.at));
        break;
      case 'cut':
        cluster.network.setNode(nodeId(step.at), false);
        break;
      case 'lag':
        this.lagging.add(step.at);
        break;
      case 'heal':
        this.lagging.delete(step.at);
        cluster.network.setNode(nodeId(step.at), true);
        break;
      case 'restart':
        cluster.node(step.at).kill();
        await cluster.node(step.at).start();
        break;
      case 'tick':
        await cluster.tick(step.ticks);
        break;
    }
  }

  private async write({ kind, key, own }: Extract<Step, { own: boolean }>): Promise<void> {
    const shard = this.cluster.leader?.shard?.shard;
    if (shard === undefined) return;
    const truth = this.truthOf(key);
    const operation = kind === 'delete' ? remove(key) : put(key, 'v', brief(kind));
    const answer = await this.within<Written>((done) => {
      shard.write([write(operation)], newCall(), done);
    });
    const [result] = answer?.result?.results ?? [];
    if (answer?.result === undefined || (result?.kind !== 'put' && result?.kind !== 'delete')) {
      truth.unknown = true;
      return;
    }
    const { revision } = result;
    if (kind === 'delete') truth.deletes.push(revision);
    if (kind === 'brief') truth.brief.add(revision);
    if (!own) return;
    for (const each of answer.result.positionsOf(bytes(key))) mergePosition(this.token, each);
    this.floors.set(key, { revision, isGone: kind === 'delete' });
  }

  private async read(key: string, node: ShardNode): Promise<void> {
    const shard = node.shard?.shard;
    if (shard === undefined) return;
    const slot = slotOf(bytes(key));
    const position = this.token.get(slot);
    const maxStalenessMs = Number.MAX_SAFE_INTEGER;
    const positions = new Map(position === undefined ? [] : [[slot, position]]);
    const level: ReadLevel =
      this.level === 'stale'
        ? { kind: 'stale', maxStalenessMs }
        : { kind: 'atLeast', positions, maxStalenessMs };
    const answer = await this.within<ReadResult>((done) => {
      shard.read([bytes(key)], level, newCall(), done);
    });
    if (answer?.result === undefined) return;
    this.answered.set(node.id, (this.answered.get(node.id) ?? 0) + 1);
    for (const each of answer.result.positionsAt(0)) mergePosition(this.token, each);
    this.judge(key, answer.result.values[0]?.revision, node);
  }

  /** `revision` undefined: no such key. */
  private judge(key: string, revision: number | undefined, node: ShardNode): void {
    const floor = this.floors.get(key) ?? nothing;
    const { deletes, brief: briefs, unknown } = this.truthOf(key);
    const where = `${key} on node ${node.id}`;
    if (revision !== undefined) {
      if (revision < floor.revision || (floor.isGone && revision === floor.revision))
        this.violations.push(`${where}: revision ${revision} after ${JSON.stringify(floor)}`);
      this.floors.set(key, { revision: Math.max(revision, floor.revision), isGone: false });
      return;
    }
    // Any later put would have ended a brief one too.
    const mayBeGone =
      unknown ||
      floor.isGone ||
      floor.revision === 0 ||
      [...deletes, ...briefs].some((each) => each >= floor.revision);
    if (!mayBeGone) this.violations.push(`${where}: nothing after ${JSON.stringify(floor)}`);
    this.floors.set(key, { ...floor, isGone: floor.revision > 0 });
  }

  private truthOf(key: string): Truth {
    let truth = this.truths.get(key);
    if (truth === undefined) {
      truth = { deletes: [], brief: new Set(), unknown: false };
      this.truths.set(key, truth);
    }
    return truth;
  }

  /** The answer, if it comes soon. */
  private async within<T>(
    begin: (done: (error: Error | undefined, result: T | undefined) => void) => void,
  ): Promise<Answer<T> | undefined> {
    const answers: Answer<T>[] = [];
    begin((error, result) => answers.push({ error, result }));
    await this.cluster.clock.settle();
    for (let tick = 0; answers.length === 0 && tick < ticksMax; tick++) await this.cluster.tick();
    return answers[0];
  }
}

function brief(kind: string): { readonly ttlMs?: number } {
  return kind === 'brief' ? { ttlMs } : {};
}

function newCall(): { readonly deadlineMs: number; mayHaveApplied: boolean } {
  return { deadlineMs: Infinity, mayHaveApplied: false };
}
