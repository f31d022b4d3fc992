/**
 * What operators do to a running cluster, by the admin calls of any node. They look at the newest
 * topology that some node has, which may be old; much of what they ask for is refused.
 */
import { codecOf } from '../../../proto/definitions.js';
import type {
  ChangeClusterReply,
  ChangeClusterRequest,
  InitClusterRequest,
  TakeHashRequest,
  TransferLeaderRequest,
} from '../../../proto/messages.js';
import { KvError } from '../../../src/errors.js';
import { isEnded } from '../../../src/meta/migrations.js';
import { isBetween } from '../../../src/meta/pins.js';
import { noCluster, type MigrationRecord, type Topology } from '../../../src/meta/topology.js';
import { slotOf } from '../../../src/router/slot.js';
import type { SimRandom } from '../random.js';
import { Life } from './life.js';
import { nodeOperations, type NodeOperation } from './plan.js';
import { addressOf, type SimNode } from './sim-node.js';
import type { NodeWorld } from './sim-node.js';

const place = 900;
const timeoutMs = 3000;
/** Splits end there. */
const shardsMax = 5;
const changeRequest = codecOf<ChangeClusterRequest>('quorate.v1.ChangeClusterRequest');
const changeReply = codecOf<ChangeClusterReply>('quorate.v1.ChangeClusterReply');
const initRequest = codecOf<InitClusterRequest>('quorate.v1.InitClusterRequest');
const transferRequest = codecOf<TransferLeaderRequest>('quorate.v1.TransferLeaderRequest');
const hashRequest = codecOf<TakeHashRequest>('quorate.v1.TakeHashRequest');

export class NodeOperator {
  private readonly world: NodeWorld;
  private readonly random: SimRandom;
  private readonly life: Life;
  private underWay = 0;

  constructor(world: NodeWorld, random: SimRandom) {
    this.world = world;
    this.random = random;
    this.life = new Life(world.timeline, { offsetMs: 0, rate: 1 });
  }

  /** The newest that a node knows. */
  get topology(): Topology {
    let newest = noCluster;
    for (const { port } of this.world.nodes) {
      const known = port?.parts.view.topology;
      if (known !== undefined && known.version > newest.version) newest = known;
    }
    return newest;
  }

  begin(): void {
    for (const operation of nodeOperations) {
      const everyMs = this.world.plan.operations.get(operation);
      if (everyMs !== undefined) this.again(operation, everyMs);
    }
  }

  /** Makes the cluster; settings as the plan has them. */
  async init(): Promise<void> {
    const { plan } = this.world;
    const request = initRequest.encode({ shards: plan.shards, replicas: plan.replication });
    while (this.topology.version === 0) {
      await this.ask('InitCluster', request, 1);
      await this.pause(50);
    }
    const settings = {
      suspectAfterMs: 500,
      downAfterMs: 1000,
      replaceAfterMs: plan.replaceAfterMs,
      freezeMsMax: plan.freezeMsMax,
      migrationBytesPerSecond: plan.bytesPerSecond,
      migrationGiveUpMs: 5000,
    };
    for (const [name, value] of Object.entries(settings))
      await this.insist({ kind: 'setSetting', name, value });
  }

  /** Until it is done, or there is nothing to be done about it. */
  async insist(command: object): Promise<void> {
    while ((await this.change(command)) === 'failed') await this.pause(100);
  }

  /** Ends what would keep the cluster from coming to rest, once nothing else is asked for any more. */
  async settle(): Promise<void> {
    while (this.underWay > 0) await this.pause(50);
    // What was given up by its caller may still be on its way to the log.
    await this.pause(timeoutMs);
    for (const { id, state } of this.topology.nodes)
      if (state === 'draining') await this.insist({ kind: 'undrain', node: id });
    for (const { id, state } of this.topology.migrations)
      if (state === 'paused') await this.insist({ ...setMigration(id), action: 'resume' });
    await this.endPins();
    const lost = this.world.nodes.find((node) => node.isDestroyed);
    if (lost !== undefined) await this.insist({ kind: 'removeNode', node: lost.id, force: true });
  }

  /** A pin whose way back to its hash slot was cancelled, or failed, goes on when that is said again. */
  private async endPins(): Promise<void> {
    for (;;) {
      const between = this.topology.pins.filter(isBetween);
      if (between.length === 0) return;
      for (const { key, isPrefix, state } of between)
        if (state === 'unpinning') await this.insist({ kind: 'unpinKeys', key, isPrefix });
      await this.pause(500);
    }
  }

  private again(operation: NodeOperation, everyMs: number): void {
    this.world.timeline.after(this.random.between(0.3, 1.7) * everyMs, () => {
      if (!this.world.isStormy) return;
      this.underWay++;
      this.operate(operation)
        .then((done) => {
          if (done) this.world.coverage.count(`operation: ${operation}`);
        })
        .catch((error: unknown) => {
          if (!(error instanceof KvError)) this.world.fail(error);
        })
        .finally(() => {
          this.underWay--;
        });
      this.again(operation, everyMs);
    });
  }

  /** False: there was nothing to do it to, or it was refused. */
  private async operate(operation: NodeOperation): Promise<boolean> {
    const command = this.commandOf(operation);
    if (command !== undefined) return (await this.change(command)) === 'done';
    const { shards } = this.topology;
    const groupId = this.random.pick([0, ...shards.map(({ id }) => id)]) ?? 0;
    if (operation === 'hash asked for')
      return (await this.ask('TakeHash', hashRequest.encode({ groupId }))) !== undefined;
    if (operation !== 'leadership transferred') return false;
    const request = transferRequest.encode({ groupId, toReplica: 0 });
    return (await this.ask('TransferLeader', request)) !== undefined;
  }

  private commandOf(operation: NodeOperation): object | undefined {
    const { random, topology } = this;
    const { nodes, shards } = topology;
    const node = random.pick(nodes.filter(({ state }) => state !== 'removed'))?.id ?? 1;
    const shard = random.pick(shards);
    const id = shard?.id ?? 1;
    const from = random.pick(shard?.replicas ?? [])?.node ?? 1;
    switch (operation) {
      case 'migration begun':
        return this.migration();
      case 'migration paused':
        return this.migrationCommand('pause', ({ state }) => state === 'running');
      case 'migration resumed':
        return this.migrationCommand('resume', ({ state }) => state === 'paused');
      case 'migration cancelled':
        return this.migrationCommand('cancel', () => true);
      case 'leader placed':
        return { kind: 'setLeader', shard: id, node: from };
      case 'node drained':
        return { kind: 'drain', node };
      case 'drain ended':
        return { kind: 'undrain', node: nodes.find(({ state }) => state === 'draining')?.id ?? 0 };
      case 'replica added':
        return { kind: 'addReplica', shard: id, node };
      case 'replica removed':
        return { kind: 'removeReplica', shard: id, node: from };
      case 'replica replaced':
        return { kind: 'replaceReplica', shard: id, from, to: node };
      case 'metadata moved': {
        const count = random.pick([3, 3, nodes.length]) ?? 3;
        const chosen = random.shuffled(nodes.map((each) => each.id)).slice(0, count);
        return { kind: 'setMetadata', nodes: chosen };
      }
      case 'keys pinned':
        return { kind: 'pinKeys', ...this.keysToPin(), shard: id };
      case 'keys unpinned': {
        const pin = random.pick(topology.pins);
        return pin && { kind: 'unpinKeys', key: pin.key, isPrefix: pin.isPrefix };
      }
      case 'shard split':
        if (shards.length >= shardsMax) return undefined;
        return { kind: 'splitShard', shard: id, into: random.integer(2, 3) };
      case 'shard merged': {
        const others = shards.flatMap((each) => (each.id === id ? [] : [each.id]));
        const into = random.shuffled(others).slice(0, random.integer(1, 2));
        return { kind: 'mergeShard', shard: id, into };
      }
      default:
        return undefined;
    }
  }

  /** One of the keys in use, or some of them. */
  private keysToPin(): { readonly key: string; readonly isPrefix: boolean } {
    const { random } = this;
    const isPrefix = random.chance(0.4);
    const name = random.pick(
      isPrefix ? ['', 'l', 're', 'd'] : ['reg', 'del', 'list', 'ctr', 'ttl'],
    );
    const key = `{${random.pick(this.world.plan.tags) ?? 'a'}}${name ?? ''}`;
    return { key: Buffer.from(key).toString('base64'), isPrefix };
  }

  /** Some of the slots in use, and perhaps some around them. */
  private migration(): object | undefined {
    const { random, topology } = this;
    const pin = random.pick(topology.pins);
    if (pin !== undefined && random.chance(0.4)) {
      const slots = [{ first: pin.slot, last: pin.slot }];
      const other = random.pick(topology.shards.filter(({ id }) => id !== pin.shard));
      const moves = [{ slots, source: pin.shard, target: other?.id ?? pin.shard }];
      return { kind: 'startMigrations', moves };
    }
    const slot = slotOf(Buffer.from(`{${random.pick(this.world.plan.tags) ?? 'a'}}`));
    const range = topology.slots.find(({ first, last }) => first <= slot && slot <= last);
    const target = random.pick(topology.shards.filter(({ id }) => id !== range?.shard));
    if (range === undefined || target === undefined) return undefined;
    const margin = random.pick([0, 0, 3, 300]) ?? 0;
    const first = Math.max(range.first, slot - margin);
    const last = Math.min(range.last, slot + margin);
    const moves = [{ slots: [{ first, last }], source: range.shard, target: target.id }];
    return { kind: 'startMigrations', moves };
  }

  private migrationCommand(
    action: 'pause' | 'resume' | 'cancel',
    fits: (migration: MigrationRecord) => boolean,
  ): object | undefined {
    const open = this.topology.migrations.filter((each) => !isEnded(each) && fits(each));
    const chosen = this.random.pick(open);
    return chosen && { ...setMigration(chosen.id), action };
  }

  private async change(command: object): Promise<'done' | 'refused' | 'failed'> {
    const request = changeRequest.encode({ command: JSON.stringify(command) });
    try {
      const reply = await this.ask('ChangeCluster', request);
      if (reply === undefined) return 'failed';
      this.world.trace.line(`operator: ${JSON.stringify(command)}`);
      return changeReply.decode(reply).changed ? 'done' : 'refused';
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      return 'refused';
    }
  }

  /** Undefined: nobody could do it just now. Rejects with what was refused. */
  private ask(method: string, request: Uint8Array, at?: number): Promise<Uint8Array | undefined> {
    const nodes = this.world.nodes.filter((each: SimNode) => each.isWell);
    const target = at ?? this.random.pick(nodes)?.place ?? 1;
    const { life } = this;
    const call = { place, life, address: addressOf(target), timeoutMs, forwarded: false };
    return new Promise((resolve, reject) => {
      const cancel = life.after(timeoutMs, () => {
        resolve(undefined);
      });
      this.world.calls.call(
        { ...call, path: `/quorate.v1.Admin/${method}`, request },
        (error, reply) => {
          cancel();
          if (error?.code === 'KV_INVALID') reject(error);
          else resolve(reply);
        },
      );
    });
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.life.after(ms, resolve);
    });
  }
}

function setMigration(id: number): object {
  return { kind: 'setMigration', id, reason: 'an operator wants it' };
}
