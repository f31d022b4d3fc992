/**
 * A script for a run of whole nodes: one migration after the other, and in each, at the moment when a
 * replica has applied one chosen step, the leader of a chosen group is killed.
 */
import type { TxnReply, TxnRequest } from '../../../proto/messages.js';
import { method } from '../../../src/client/wire.js';
import { isEnded } from '../../../src/meta/migrations.js';
import type { MigrationRecord } from '../../../src/meta/topology.js';
import { groupId, type GroupId } from '../../../raft/index.js';
import { slotOf } from '../../../src/router/slot.js';
import { SlotOwnership, type SlotState } from '../../../src/shard/slot-state.js';
import { SimRandom } from '../random.js';
import { ClientCalls } from './client-calls.js';
import { Life } from './life.js';
import type { NodeOperator } from './node-operator.js';
import type { Script } from './node-sim.js';
import { drawNodePlan, type NodePlan } from './plan.js';
import type { NodeWorld, SimNode } from './sim-node.js';

export type Victim = 'source' | 'target' | 'metadata';

/** What can be seen of a migration: what the metadata group says, and each replica at both ends. */
interface Sight {
  readonly record: MigrationRecord;
  readonly source: readonly SlotState[];
  readonly target: readonly SlotState[];
}

interface Step {
  readonly name: string;
  readonly end: 'done' | 'cancelled';
  readonly isSeen: (sight: Sight) => boolean;
}

const at = (states: readonly SlotState[], id: number, ownership: SlotOwnership): boolean =>
  states.some((state) => state.ownership === ownership && state.migration?.id === id);

const isPieceThere = ({ record: { id }, target }: Sight): boolean =>
  target.some(({ migration }) => migration?.id === id && migration.cursor.byteLength > 0);

export const steps: readonly Step[] = [
  { name: 'begun', end: 'done', isSeen: ({ record }) => record.state === 'running' },
  {
    name: 'export-begin',
    end: 'done',
    isSeen: ({ record: { id }, source }) => at(source, id, SlotOwnership.exporting),
  },
  {
    name: 'import-begin',
    end: 'done',
    isSeen: ({ record: { id }, target }) => at(target, id, SlotOwnership.importing),
  },
  { name: 'the first piece', end: 'done', isSeen: isPieceThere },
  {
    name: 'the last piece',
    end: 'done',
    isSeen: ({ record: { id }, target }) =>
      target.some(({ migration }) => migration?.id === id && migration.copied),
  },
  {
    name: 'changes',
    end: 'done',
    isSeen: ({ record: { id }, target }) =>
      target.some(({ migration }) => migration?.id === id && migration.through > migration.from),
  },
  {
    name: 'freeze',
    end: 'done',
    isSeen: ({ record: { id }, source }) => at(source, id, SlotOwnership.frozen),
  },
  {
    name: 'seal',
    end: 'done',
    isSeen: ({ record: { id }, target }) => at(target, id, SlotOwnership.ready),
  },
  {
    name: 'handover',
    end: 'done',
    isSeen: ({ record: { id }, source }) => at(source, id, SlotOwnership.handedOver),
  },
  {
    name: 'activate',
    end: 'done',
    isSeen: ({ record: { id }, target }) =>
      target.some(({ ownership, ended }) => ownership === SlotOwnership.owned && ended === id),
  },
  { name: 'told', end: 'done', isSeen: ({ record }) => record.moved > 0 },
  {
    name: 'collect',
    end: 'done',
    isSeen: ({ record: { id }, source }) => at(source, id, SlotOwnership.absent),
  },
  { name: 'cancelling', end: 'cancelled', isSeen: ({ record }) => record.state === 'cancelling' },
  {
    name: 'export-end',
    end: 'cancelled',
    isSeen: ({ record: { id }, source }) =>
      source.some(({ ownership, ended }) => ownership === SlotOwnership.owned && ended === id),
  },
  {
    name: 'import-end',
    end: 'cancelled',
    isSeen: ({ record: { id }, target }) =>
      target.some(({ ownership, ended }) => ownership === SlotOwnership.absent && ended === id),
  },
  { name: 'cancelled', end: 'cancelled', isSeen: ({ record }) => record.state === 'cancelled' },
];

const tag = 'a';
const slot = slotOf(Buffer.from(`{${tag}}`));
/** In two pieces, and at the rate of the plan the second one comes a second later. */
const fillCount = 600;
const fillBytes = 100;
const place = 950;
const lookEveryMs = 10;
const waitMaxMs = 60_000;

const txn = method<TxnRequest, TxnReply>('KV/Txn', 'TxnRequest', 'TxnReply');

/** Nothing happens but what the script does. */
export function planOfKills(seed: number): NodePlan {
  return {
    ...drawNodePlan(seed),
    nodes: 3,
    shards: 2,
    replication: 3,
    tags: [tag],
    clients: 2,
    thinkMaxMs: 60,
    readShare: 0.4,
    batchShare: 0,
    valueBytes: 8,
    leases: false,
    quietAfterMs: 0,
    tickMs: 25,
    skew: 0,
    wallOffsetMs: 0,
    links: { delayMinMs: 0.2, delayMaxMs: 2, loss: 0, longHold: 0 },
    disk: { syncMinMs: 0.2, syncMaxMs: 3, slowest: 1 },
    applyMaxMs: 0,
    segmentKib: 256,
    logKeptKib: 1024,
    replaceAfterMs: 300_000,
    freezeMsMax: 2000,
    bytesPerSecond: 65_536,
    faults: new Map(),
    operations: new Map(),
    restartElectionsMax: 2,
  };
}

interface Watched {
  readonly step: Step;
  readonly id: number;
  readonly source: GroupId;
  readonly target: GroupId;
  isKilled: boolean;
}

export interface StepKillsOptions {
  readonly world: NodeWorld;
  readonly operator: NodeOperator;
  readonly victim: Victim;
  /** Told the steps at which the leader was killed. */
  readonly killed: string[];
}

export class StepKills implements Script {
  private readonly world: NodeWorld;
  private readonly operator: NodeOperator;
  private readonly victim: Victim;
  private readonly killed: string[];
  private readonly life: Life;
  private watched: Watched | undefined;

  constructor({ world, operator, victim, killed }: StepKillsOptions) {
    this.world = world;
    this.operator = operator;
    this.victim = victim;
    this.killed = killed;
    this.life = new Life(world.timeline, { offsetMs: 0, rate: 1 });
  }

  async play(): Promise<void> {
    await this.fill();
    for (const step of steps) await this.migrate(step);
  }

  afterEvent(): void {
    const { watched } = this;
    if (watched === undefined || watched.isKilled) return;
    const sight = this.sightOf(watched);
    if (sight === undefined || !watched.step.isSeen(sight)) return;
    const group = this.victim === 'metadata' ? groupId(0) : watched[this.victim];
    const node = this.leaderOf(group);
    if (node === undefined) return;
    watched.isKilled = true;
    this.killed.push(watched.step.name);
    this.world.trace.line(`kills node ${node.id} at ${watched.step.name}`);
    node.crash('kill');
  }

  private async fill(): Promise<void> {
    const calls = new ClientCalls(this.world, place, new SimRandom(1));
    const then = Array.from({ length: fillCount }, (_, n) => ({
      put: { key: Buffer.from(`{${tag}}fill${n}`), value: Buffer.alloc(fillBytes, 'f') },
    }));
    const key = Buffer.from(`{${tag}}`);
    await calls.call(txn, { then }, { key, isRead: false, withinMs: waitMaxMs });
  }

  private async migrate(step: Step): Promise<void> {
    const { topology } = this.operator;
    const owner = topology.slots.find(({ first, last }) => first <= slot && slot <= last)?.shard;
    const [source, target] = owner === 1 ? [1, 2] : [2, 1];
    const id = topology.next.migration;
    const watched: Watched = {
      step,
      id,
      source: groupId(source),
      target: groupId(target),
      isKilled: false,
    };
    this.watched = watched;
    const moves = [{ slots: [{ first: slot, last: slot }], source, target }];
    await this.operator.insist({ kind: 'startMigrations', moves });
    if (step.end === 'cancelled') {
      await this.until(`${step.name}: a piece is at the target`, () => {
        const sight = this.sightOf(watched);
        return sight !== undefined && isPieceThere(sight);
      });
      const command = { kind: 'setMigration', id, action: 'cancel', reason: 'a script wants it' };
      await this.operator.insist(command);
    }
    await this.until(`${step.name}: the end of migration ${id}`, () => {
      const record = this.recordOf(id);
      return watched.isKilled && record !== undefined && isEnded(record);
    });
    const { state, reason } = this.recordOf(id) ?? {};
    if (state !== step.end)
      throw new Error(`killed at ${step.name}, migration ${id} is ${state ?? ''}: ${reason ?? ''}`);
    await this.until('every node is back', () =>
      this.world.nodes.every((node) => node.isWell && node.port !== undefined),
    );
  }

  private recordOf(id: number): MigrationRecord | undefined {
    return this.operator.topology.migrations.find((each) => each.id === id);
  }

  private sightOf({ id, source, target }: Watched): Sight | undefined {
    const record = this.recordOf(id);
    if (record === undefined) return undefined;
    return { record, source: this.statesAt(source), target: this.statesAt(target) };
  }

  private statesAt(group: GroupId): readonly SlotState[] {
    return this.world.nodes.flatMap(({ port }) => {
      const shard = port?.parts.shards.get(group)?.shard;
      return shard === undefined ? [] : [shard.slotState(slot)];
    });
  }

  private leaderOf(group: GroupId): SimNode | undefined {
    return this.world.nodes.find(({ port }) =>
      port?.parts.foundations.host.allGroups().some((each) => each.id === group && each.isLeader),
    );
  }

  private async until(what: string, isSo: () => boolean): Promise<void> {
    const end = this.world.timeline.now + waitMaxMs;
    while (!isSo()) {
      if (this.world.timeline.now > end) throw new Error(`${what}: not within ${waitMaxMs} ms`);
      await new Promise<void>((resolve) => {
        this.life.after(lookEveryMs, resolve);
      });
    }
  }
}
