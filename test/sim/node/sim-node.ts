/**
 * A node: what survives its processes (disk, engine, identity), and the process that runs just now,
 * a real `QuorateNode` over a machine of simulated parts.
 */
import { MemoryEngine } from '../../../storage/index.js';
import { RaftLogDamaged } from '../../../storage/raft-log/failure.js';
import type { Config } from '../../../src/config/config.js';
import { KvError } from '../../../src/errors.js';
import type { Machine, NodeIdentity } from '../../../src/machine.js';
import { parseTopology, type Topology } from '../../../src/meta/topology.js';
import type { ClientPortOptions } from '../../../src/client-port.js';
import { QuorateNode } from '../../../src/node.js';
import { SimulatedDisk, type DiskOperation } from '../../storage/raft-log/simulated-disk.js';
import type { SimRandom } from '../random.js';
import { LivedEngine } from './engine.js';
import { Life } from './life.js';
import { clockRate, electionTicks, leasePercent, type NodePlan } from './plan.js';
import type { Coverage } from '../coverage.js';
import type { Timeline } from '../timeline.js';
import type { Trace } from '../trace.js';
import type { Calls } from './calls.js';
import type { Links } from './links.js';
import type { NodeCovered } from './node-coverage.js';
import type { Peers } from './peers.js';

const MiB = 1024 * 1024;
const KiB = 1024;

/** What the parts of a run of whole nodes see of it. */
export interface NodeWorld {
  readonly plan: NodePlan;
  readonly timeline: Timeline;
  readonly links: Links;
  readonly calls: Calls;
  readonly peers: Peers;
  readonly coverage: Coverage<NodeCovered>;
  readonly trace: Trace;
  /** All that ever were, by place. */
  readonly nodes: readonly SimNode[];
  /** Faults and operations happen; false once the run heals. */
  readonly isStormy: boolean;
  /** The run has failed. */
  fail(error: unknown): void;
  /** Something has reached the process of this node. */
  touched(node: SimNode): void;
  /** A process serves from now on. */
  started(node: SimNode): void;
  crashed(node: SimNode): void;
  logged(
    node: SimNode,
    level: string,
    fields: Readonly<Record<string, unknown>>,
    message: string,
  ): void;
  /** A node has noticed that its Raft log is not what it wrote, and is given up for another one. */
  damageFound(): void;
  /** One more node, that joins the others. */
  join(): SimNode;
}

export function addressOf(place: number): string {
  return `10.0.0.${place}:7400`;
}

export class SimNode {
  /** Of its machine; its node id, too, unless it has joined. */
  readonly place: number;
  /** 0: it has joined nothing yet. */
  id: number;
  life: Life | undefined;
  /** What the running process consists of, from the moment it has been put together. */
  port: ClientPortOptions | undefined;
  isDestroyed = false;
  /** Its disk is so many times slower. */
  slowness = 1;
  /** The next write of the Raft log fails. */
  failNextSync = false;
  isNearlyFull = false;
  /** Where a bit of its Raft log is not what was written. */
  damage: { readonly path: string; readonly at: number; readonly byte: number } | undefined;
  wallOffsetMs: number;
  readonly disk = new SimulatedDisk();
  engine = new MemoryEngine();
  private topology: string | undefined;
  private readonly joins: readonly string[];
  private readonly rate: number;
  private readonly world: NodeWorld;
  private readonly random: SimRandom;
  private readonly directoryId: Uint8Array;
  /** What was damaged before this process began: it may have read later damage in time. */
  private damageAtStart: SimNode['damage'];
  /** What was done to this process on purpose, so that its end is no surprise. */
  private mayFail = false;

  constructor(world: NodeWorld, place: number, joins: readonly string[], random: SimRandom) {
    this.world = world;
    this.place = place;
    this.joins = joins;
    this.random = random;
    this.id = joins.length > 0 ? 0 : place;
    this.rate = clockRate(world.plan, random);
    const { wallOffsetMs } = world.plan;
    this.wallOffsetMs = Math.round(random.between(-wallOffsetMs, wallOffsetMs));
    this.directoryId = directoryIdOf(place);
    world.calls.know(addressOf(place), place);
  }

  get isRunning(): boolean {
    return this.life !== undefined;
  }

  /** A process that answers, or will in a moment. */
  get isWell(): boolean {
    return this.life !== undefined && !this.life.isPaused;
  }

  start(): void {
    if (this.isDestroyed || this.life !== undefined) return;
    const { world } = this;
    const { wallOffsetMs: offsetMs, rate } = this;
    const life = new Life(world.timeline, { offsetMs, rate }, () => {
      world.touched(this);
    });
    this.life = life;
    this.damageAtStart = this.damage;
    this.mayFail = false;
    this.failNextSync = false;
    this.disk.bytesMax = Infinity;
    const stop = (error: unknown): void => {
      if (life.isOver) return;
      if (this.damage !== undefined && error instanceof RaftLogDamaged) {
        this.destroy();
        world.damageFound();
        return;
      }
      const isExpected = this.mayFail || (error instanceof KvError && this.joins.length > 0);
      if (!isExpected) world.fail(error);
      else world.coverage.count('node stopped itself');
      this.crash('kill');
    };
    this.disk.hook = (operation) => this.diskWork(operation, life);
    QuorateNode.open({
      config: this.config(),
      log: (level, fields, message) => {
        if (!life.isOver) world.logged(this, level, fields, message);
      },
      clock: life,
      machine: this.machineOf(life),
      onIdentity: (id) => {
        this.id = id;
      },
      onFatal: stop,
      newPort: (port) => {
        if (!life.isOver) this.port = port;
        return {
          open: () => {
            if (!life.isOver)
              world.calls.open(addressOf(this.place), { place: this.place, life, port });
            if (!life.isOver) world.started(this);
            return Promise.resolve();
          },
          leave: () => undefined,
          close: () => Promise.resolve(),
        };
      },
    }).catch(stop);
  }

  /** `kill`: what was written is there. `power cut`: of what was not synced, any part. */
  crash(how: 'kill' | 'power cut'): void {
    const { life } = this;
    if (life === undefined) return;
    this.life = undefined;
    this.port = undefined;
    life.end();
    const { unsyncedLength } = this.engine;
    if (how === 'kill') {
      this.disk.kill();
      this.engine = this.engine.crash(unsyncedLength);
    } else {
      this.disk.cutPower(() => this.random.bits());
      const kept = this.random.integer(0, unsyncedLength);
      if (kept < unsyncedLength) this.world.coverage.count('engine rolled back');
      this.engine = this.engine.crash(kept);
      // Written beside and renamed, but not synced.
      if (this.random.chance(0.3)) this.topology = undefined;
    }
    this.world.crashed(this);
  }

  destroy(): void {
    this.isDestroyed = true;
    this.crash('kill');
  }

  jump(ms: number): void {
    this.wallOffsetMs += ms;
    this.life?.jump(ms);
  }

  failSync(): void {
    this.mayFail = true;
    this.failNextSync = true;
  }

  fillDisk(): void {
    this.mayFail = true;
    this.disk.bytesMax = 0;
  }

  /**
   * In a segment that is full: there it cannot be taken for the torn end of the last write (rule D11).
   * False: there is none.
   */
  flipBit(): boolean {
    const path = this.random.pick(this.disk.paths().slice(0, -1));
    if (path === undefined) return false;
    const bytes = this.disk.bytesOf(path);
    // Not the last frame: the next segment's name may not be durable yet.
    const at = this.random.integer(0, bytes.length >> 1);
    const byte = bytes.readUInt8(at) ^ (1 << this.random.integer(0, 7));
    bytes.writeUInt8(byte, at);
    this.damage = { path, at, byte };
    return true;
  }

  get hasDamage(): boolean {
    return this.isThere(this.damage);
  }

  /** It has read damage and serves. */
  get overlooksDamage(): boolean {
    return this.isThere(this.damageAtStart);
  }

  /** The segment may have been dropped before anybody read it. */
  private isThere(damage: SimNode['damage']): boolean {
    const { disk } = this;
    if (damage === undefined || !disk.paths().includes(damage.path)) return false;
    return disk.bytesOf(damage.path).readUInt8(damage.at) === damage.byte;
  }

  private diskWork({ kind }: DiskOperation, life: Life): void | Promise<void> {
    if (kind !== 'write' && kind !== 'truncate' && kind !== 'syncDirectory') return;
    const { syncMinMs, syncMaxMs } = this.world.plan.disk;
    const ms = this.random.tailed(syncMinMs, syncMaxMs) * this.slowness;
    return new Promise((resolve, reject) => {
      this.world.timeline.after(ms, () => {
        life.enter(() => {
          if (!this.failNextSync) {
            resolve();
            return;
          }
          this.failNextSync = false;
          this.world.coverage.count('sync failed');
          reject(Object.assign(new Error('EIO: simulated'), { code: 'EIO' }));
        });
      });
    });
  }

  private machineOf(life: Life): Machine {
    const { world, random } = this;
    const { applyMaxMs } = world.plan;
    const delayMs = (): number => (random.chance(0.5) ? random.tailed(0, applyMaxMs) : 0);
    return {
      openIdentity: () => this.identity(),
      openEngine: () =>
        Promise.resolve(
          new LivedEngine(this.engine, life, applyMaxMs === 0 ? (): number => 0 : delayMs),
        ),
      raftLog: {
        disk: this.disk.mount(),
        schedule: (run) => {
          life.endOfTurn(run);
        },
      },
      readTopology: () => (this.topology === undefined ? undefined : parseTopology(this.topology)),
      writeTopology: (_config: Config, topology: Topology) => {
        if (!life.isOver) this.topology = JSON.stringify(topology);
      },
      freeBytes: () => Promise.resolve(this.isNearlyFull ? MiB : 1000 * MiB),
      openCalls: () => world.calls.of(this.place, life),
      watchTopology: (options) => world.calls.watch(this.place, life, options),
      newTransport: (options) => world.peers.transport(options, life),
      drawSeed: () => random.bits(),
    };
  }

  private identity(): NodeIdentity {
    const givenId = (): number => this.id;
    return {
      get nodeId() {
        return givenId();
      },
      directoryId: this.directoryId,
      settle: (id) => {
        this.id = id;
      },
      forget: () => undefined,
      // As after the handshakes of the first start.
      known: (node) => directoryIdOf(node),
      remember: () => undefined,
    };
  }

  private config(): Config {
    const { plan } = this.world;
    const at = (port: number): { host: string; port: number } => ({
      host: `10.0.0.${this.place}`,
      port,
    });
    const first = Array.from({ length: plan.nodes }, (_, n) => n + 1);
    return {
      clusterId: 'sim',
      nodeId: this.joins.length > 0 ? 0 : this.place,
      dataDirectory: '/data',
      clientAddress: at(7400),
      peerAddress: at(7401),
      httpAddress: at(7402),
      initialCluster:
        this.joins.length > 0
          ? []
          : first.map((node) => ({
              node,
              peer: { host: `10.0.0.${node}`, port: 7401 },
              client: { host: `10.0.0.${node}`, port: 7400 },
            })),
      join: this.joins,
      labels: [`host=h${this.place}`],
      weight: 100,
      engine: 'memory',
      tickMs: plan.tickMs,
      electionTicks,
      heartbeatTicks: 2,
      quietAfterMs: plan.quietAfterMs,
      leases: plan.leases,
      leasePercent,
      segmentMib: plan.segmentKib / KiB,
      engineMemoryMib: 8,
      diskReserveMib: 256,
      logKeptMib: plan.logKeptKib / KiB,
      keyBytesMax: 4 * KiB,
      valueBytesMax: MiB,
      requestBytesMax: 4 * MiB,
      batchLengthMax: 1000,
      uncommittedMib: 1,
      http2: 'node',
      unaryDoor: 'http2',
      logLevel: 'info',
    };
  }
}

function directoryIdOf(place: number): Uint8Array {
  return Buffer.alloc(16, place);
}
